package unixsocket

import (
	"context"
	"net"
	"slices"

	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/peer"
)

// Peer is the process at the other end of the socket, as the kernel recorded it when the process
// connected. A descriptor that is passed on, or kept across a change of user, keeps the identity of
// the one who connected.
type Peer struct {
	// PID, UID and GID are SO_PEERCRED's; see unix(7).
	PID      int32
	UID, GID uint32
	// Groups are the supplementary groups, SO_PEERGROUPS's; read from the socket, not from the pid,
	// so that a recycled pid cannot lend its groups.
	Groups []uint32
}

// InGroup reports whether the process is in the group, as its primary one or as a supplementary
// one.
func (p Peer) InGroup(gid uint32) bool {
	return p.GID == gid || slices.Contains(p.Groups, gid)
}

// PeerOf returns the process that sent the request of a server with Credentials. It reports false
// when the request came another way.
func PeerOf(ctx context.Context) (Peer, bool) {
	p, ok := peer.FromContext(ctx)
	if !ok {
		return Peer{}, false
	}
	info, ok := p.AuthInfo.(peerAuthInfo)
	return info.Peer, ok
}

// ConnOf returns the connection that a request came over, as the server's listener accepted it; nil
// when the request came another way than to a server with Credentials.
func ConnOf(ctx context.Context) net.Conn {
	p, ok := peer.FromContext(ctx)
	if !ok {
		return nil
	}
	info, _ := p.AuthInfo.(peerAuthInfo)
	return info.conn
}

// peerAuthInfo carries a Peer and its connection from the handshake to the handlers.
type peerAuthInfo struct {
	credentials.CommonAuthInfo
	Peer
	conn net.Conn
}

// AuthType implements credentials.AuthInfo.
func (peerAuthInfo) AuthType() string { return "unix-peer" }
