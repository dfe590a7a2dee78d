import { storedReference } from './reference.js';

/** A place in a copy where a reference stands. */
export interface Slot {
  holder: Record<PropertyKey, unknown>;
  key: string;
  reference: string;
  pointer: string; // JSON pointer (RFC 6901)
}

interface Frame {
  from: Record<string, unknown>;
  to: Record<PropertyKey, unknown>;
  keys: string[];
  next: number;
}

/**
 * Copies the objects and arrays of a value and finds the stored references in it. Everything else is
 * shared with the value. It goes as deep as memory allows, and throws for a value that holds itself.
 */
export function copyAndFind(value: unknown): { copy: unknown; slots: Slot[] } {
  const root: Record<PropertyKey, unknown> = {};
  const slots: Slot[] = [];
  const copies = new Map<object, object>(); // what stands in two places is one object in the copy too
  const open = new Set<object>(); // what holds that which is looked at
  const stack: Frame[] = [{ from: { '': value }, to: root, keys: [''], next: 0 }];
  for (let top = stack.at(-1); top !== undefined; top = stack.at(-1)) {
    const key = top.keys[top.next++];
    if (key === undefined) {
      open.delete(top.from);
      stack.pop();
      continue;
    }
    const one = top.from[key];
    if (typeof one === 'string' && storedReference(one) !== undefined) {
      slots.push({ holder: top.to, key, reference: one, pointer: pointerOf(stack) });
    }
    if (!isHolder(one)) {
      put(top.to, key, one);
      continue;
    }
    if (open.has(one)) throw new TypeError(`the value holds itself at ${pointerOf(stack)}: resolve its parts one by one`);
    const known = copies.get(one);
    put(top.to, key, known ?? enter(one, stack, copies));
    if (known === undefined) open.add(one);
  }
  return { copy: root[''], slots };
}

/** Makes an empty copy of a holder and puts it on the stack. */
function enter(one: object, stack: Frame[], copies: Map<object, object>): object {
  const to: object = Array.isArray(one) ? new Array(one.length) : Object.create(Object.getPrototypeOf(one) as object | null);
  for (const symbol of Object.getOwnPropertySymbols(one)) put(to, symbol, (one as Record<symbol, unknown>)[symbol]);
  copies.set(one, to);
  stack.push({
    from: one as Record<string, unknown>, to: to as Record<PropertyKey, unknown>, keys: Object.keys(one), next: 0,
  });
  return to;
}

/** Objects and arrays as JSON has them, and none of a class. */
function isHolder(one: unknown): one is object {
  if (typeof one !== 'object' || one === null) return false;
  const prototype: unknown = Object.getPrototypeOf(one);
  return Array.isArray(one) || prototype === null || isPlain(prototype);
}

/** Whether a prototype is Object.prototype, of this realm or of another: a worker's sandbox has its own. */
function isPlain(prototype: unknown): boolean {
  return prototype === Object.prototype ||
    (Object.getPrototypeOf(prototype) === null && Object.prototype.hasOwnProperty.call(prototype, 'isPrototypeOf'));
}

/** Sets a property of its own, `__proto__` too. */
export function put(holder: object, key: PropertyKey, value: unknown): void {
  Object.defineProperty(holder, key, { value, writable: true, enumerable: true, configurable: true });
}

function pointerOf(stack: Frame[]): string {
  return stack.slice(1).map(({ keys, next }) => `/${(keys[next - 1] as string).replaceAll('~', '~0').replaceAll('/', '~1')}`).join('');
}
