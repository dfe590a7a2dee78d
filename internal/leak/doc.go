// Package leak finds values in a text that were given out before: as they are, in base64, or
// escaped as URLs and JSON escape them.
//
// A Register knows the values by keyed hashes alone, in bounded memory and for a bounded time. A
// Scanner reads one text, piece by piece, and says where such a value stands. It finds whole values
// only: a text that holds all of a value but its last byte looks like one that holds none of it.
//
// How it works: every value has patterns, namely its text and what base64 makes of it at each of
// the three places in a group of bytes. A rolling hash of the last 16 bytes of the text finds the
// beginning of a pattern; then a second hash, of another kind, has to agree over its whole length.
// Escaped texts need no patterns. The scanner reads the text as several views, one for each way to
// undo an escape, and a view costs only where it differs from the text.
package leak
