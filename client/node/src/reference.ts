const separator = '|ap_sep_v1|';

/** A stored reference, taken apart. */
export interface StoredReference {
  connection: string;
  path: string;
}

/**
 * Takes a stored reference apart. A text is one when it is exactly `{{connection|ap_sep_v1|path}}`:
 * blanks (space, tab, line ends) may stand around it, and no other `{{` or `}}` stands in it. The
 * first separator counts. Connection and path come back as they are, blanks included; either may be
 * empty or wrong, and resolving it says so. Every other text gives undefined.
 */
export function storedReference(text: string): StoredReference | undefined {
  const inside = insideOf(text);
  const at = inside?.indexOf(separator) ?? -1;
  if (inside === undefined || at < 0) return undefined;
  return { connection: inside.slice(0, at), path: inside.slice(at + separator.length) };
}

function insideOf(text: string): string | undefined {
  let start = 0;
  let end = text.length;
  while (start < end && isBlank(text.charCodeAt(start))) start++;
  while (end > start && isBlank(text.charCodeAt(end - 1))) end--;
  if (end - start < 4 || !text.startsWith('{{', start) || !text.endsWith('}}', end)) return undefined;
  const inside = text.slice(start + 2, end - 2);
  return inside.includes('{{') || inside.includes('}}') ? undefined : inside;
}

/** Fewer blanks than trim() takes: what a platform writes, and no invisible letters. */
function isBlank(code: number): boolean {
  return code === 0x20 || code === 0x09 || code === 0x0d || code === 0x0a;
}
