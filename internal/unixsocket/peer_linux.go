package unixsocket

import (
	"context"
	"errors"
	"fmt"
	"net"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
	"google.golang.org/grpc/credentials"
)

// Credentials returns a server's transport credentials that give each request its Peer. Clients use
// plain insecure credentials.
func Credentials() credentials.TransportCredentials { return peerCredentials{} }

// peerCredentials is the transport security of a Unix socket: the kernel vouches for the peer.
type peerCredentials struct{}

var errNotUnixSocket = errors.New("not a Unix socket")

// ServerHandshake implements credentials.TransportCredentials.
func (peerCredentials) ServerHandshake(conn net.Conn) (net.Conn, credentials.AuthInfo, error) {
	peer, err := PeerOn(conn)
	if err != nil {
		return nil, nil, fmt.Errorf("read the peer's credentials: %w", err)
	}
	info := peerAuthInfo{
		CommonAuthInfo: credentials.CommonAuthInfo{SecurityLevel: credentials.PrivacyAndIntegrity},
		Peer:           peer,
		conn:           conn,
	}
	return conn, info, nil
}

// ClientHandshake implements credentials.TransportCredentials; these credentials are for servers
// only.
func (peerCredentials) ClientHandshake(
	context.Context, string, net.Conn,
) (net.Conn, credentials.AuthInfo, error) {
	return nil, nil, errors.New("peer credentials are for servers")
}

// Info implements credentials.TransportCredentials.
func (peerCredentials) Info() credentials.ProtocolInfo {
	return credentials.ProtocolInfo{SecurityProtocol: "unix-peer"}
}

// Clone implements credentials.TransportCredentials.
func (peerCredentials) Clone() credentials.TransportCredentials { return peerCredentials{} }

// OverrideServerName implements credentials.TransportCredentials.
func (peerCredentials) OverrideServerName(string) error { return nil }

// PeerOn returns the process at the other end of a Unix socket.
func PeerOn(conn net.Conn) (Peer, error) {
	// another socket has no peer, and names one all the same
	_, overUnix := conn.LocalAddr().(*net.UnixAddr)
	unixConn, ok := conn.(syscall.Conn)
	if !ok || !overUnix {
		return Peer{}, errNotUnixSocket
	}
	raw, err := unixConn.SyscallConn()
	if err != nil {
		return Peer{}, err
	}
	var peer Peer
	var readErr error
	err = raw.Control(func(fd uintptr) { peer, readErr = readPeerFD(int(fd)) })
	return peer, errors.Join(err, readErr)
}

func readPeerFD(fd int) (Peer, error) {
	cred, err := unix.GetsockoptUcred(fd, unix.SOL_SOCKET, unix.SO_PEERCRED)
	if err != nil {
		return Peer{}, fmt.Errorf("SO_PEERCRED: %w", err)
	}
	groups, err := readPeerGroups(fd)
	if err != nil {
		return Peer{}, fmt.Errorf("SO_PEERGROUPS: %w", err)
	}
	return Peer{PID: cred.Pid, UID: cred.Uid, GID: cred.Gid, Groups: groups}, nil
}

// maxGroups is Linux's NGROUPS_MAX, the most groups a process can have.
const maxGroups = 65536

// readPeerGroups reads SO_PEERGROUPS, for which x/sys/unix has no wrapper. The kernel answers
// ERANGE with the length that it needs when the buffer is too small.
func readPeerGroups(fd int) ([]uint32, error) {
	groups := make([]uint32, 32)
	for {
		length := uint32(len(groups) * 4) // #nosec G115 -- at most maxGroups*4
		_, _, errno := unix.Syscall6(unix.SYS_GETSOCKOPT, uintptr(fd), unix.SOL_SOCKET,
			unix.SO_PEERGROUPS,
			uintptr(unsafe.Pointer(&groups[0])), uintptr(unsafe.Pointer(&length)), 0) // #nosec G103 -- what getsockopt(2) takes
		switch {
		case errno == 0:
			return groups[:length/4], nil
		case errno == unix.ERANGE && length <= maxGroups*4 && int(length) > len(groups)*4:
			groups = make([]uint32, length/4)
		default:
			return nil, errno
		}
	}
}
