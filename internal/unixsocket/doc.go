// Package unixsocket opens the socket that the API is served on and says who is at its other end.
//
// What it promises:
//
//   - Private. The socket never has wider permissions than asked for, not even between bind and
//     chmod.
//   - One owner. A lock file beside the socket decides who serves it. A socket that a crash left is
//     taken over; one that is served, and anything that is no socket, is left alone.
//   - Vouched for. The kernel names each peer (SO_PEERCRED). A connection whose peer it does not
//     name is closed.
package unixsocket

// MaxPath is the longest path, in bytes, that fits into Linux's sockaddr_un with its final NUL; see
// unix(7).
const MaxPath = 107
