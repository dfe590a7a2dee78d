package unixsocket_test

import (
	"net"
	"path/filepath"
	"testing"

	"github.com/secret-sidecar/secret-sidecar/internal/unixsocket"
)

func TestAPeerThatTheKernelDoesNotNameIsTurnedAway(t *testing.T) {
	pipe, other := net.Pipe()
	defer func() { _, _ = pipe.Close(), other.Close() }()
	listener, err := net.Listen("unix", filepath.Join(t.TempDir(), "s"))
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = listener.Close() }()
	closed, err := net.Dial("unix", listener.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	_ = closed.Close() // getsockopt fails on it, as where a security module denies it
	for name, conn := range map[string]net.Conn{"not a Unix socket": pipe,
		"a denied SO_PEERCRED": closed} {
		if _, _, err := unixsocket.Credentials().ServerHandshake(conn); err == nil {
			t.Errorf("%s: the handshake succeeds", name)
		}
	}
}
