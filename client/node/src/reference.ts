const separator = '|ap_sep_v1|';

/** A stored reference, taken apart. */
export interface StoredReference {
  connection: string;
  path: string;
}

/**
 * Takes a stored reference apart. A text is one when it is exactly one
 * `{{connection|ap_sep_v1|path}}`, with blank space around it or not. Two in a row are none; braces
 * within are part of the path. The first separator counts. Connection and path come back as they are,
 * blanks included; either may be empty or wrong, and resolving it says so. Every other text gives
 * undefined.
 */
export function storedReference(text: string): StoredReference | undefined {
  const trimmed = text.trim();
  if (trimmed.length < 4 || !trimmed.startsWith('{{') || !trimmed.endsWith('}}')) return undefined;
  const inside = trimmed.slice(2, -2);
  const closed = inside.indexOf('}}');
  const at = inside.indexOf(separator);
  if (at < 0 || (closed >= 0 && inside.includes('{{', closed + 2))) return undefined;
  return { connection: inside.slice(0, at), path: inside.slice(at + separator.length) };
}
