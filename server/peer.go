package server

import (
	"context"
	"slices"

	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/peer"
)

// Peer is the process at the other end of the socket, as the kernel recorded it when the process connected. A
// descriptor that is passed on, or kept across a change of user, keeps the identity of the one who connected.
type Peer struct {
	// PID, UID and GID are SO_PEERCRED's; see unix(7).
	PID      int32
	UID, GID uint32
	// Groups are the supplementary groups, SO_PEERGROUPS's; read from the socket, not from the pid, so that
	// a recycled pid cannot lend its groups.
	Groups []uint32
}

func (p Peer) inGroup(gid uint32) bool {
	return p.GID == gid || slices.Contains(p.Groups, gid)
}

// peerAuthInfo carries a Peer from the handshake to the handlers.
type peerAuthInfo struct {
	credentials.CommonAuthInfo
	Peer
}

// AuthType implements credentials.AuthInfo.
func (peerAuthInfo) AuthType() string { return "unix-peer" }

// callerOf returns the process that sent the request.
func callerOf(ctx context.Context) (Peer, error) {
	p, ok := peer.FromContext(ctx)
	if !ok {
		return Peer{}, errUnknownCaller()
	}
	info, ok := p.AuthInfo.(peerAuthInfo)
	if !ok {
		return Peer{}, errUnknownCaller()
	}
	return info.Peer, nil
}
