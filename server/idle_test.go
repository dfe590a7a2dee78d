package server

import (
	"context"
	"io"
	"net"
	"path/filepath"
	"testing"
	"time"
)

// prefaceAndSettings is how a client of HTTP/2 begins, with settings that set nothing.
const prefaceAndSettings = "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + "\x00\x00\x00\x04\x00\x00\x00\x00\x00"

func TestAConnectionThatAsksNothingIsClosed(t *testing.T) {
	t.Parallel()
	for name, rules := range map[string][]CallerRule{"a listed caller's": nil, "another one's": {}} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s, err := New(Options{})
			if err != nil {
				t.Fatal(err)
			}
			s.idleTimeout = 50 * time.Millisecond
			if err := s.Apply(Settings{Callers: rules}); err != nil {
				t.Fatal(err)
			}
			listener, err := net.Listen("unix", filepath.Join(t.TempDir(), "s"))
			if err != nil {
				t.Fatal(err)
			}
			ctx, stop := context.WithCancel(t.Context())
			served := make(chan error, 1)
			go func() { served <- s.Serve(ctx, listener) }()
			defer func() {
				stop()
				if err := <-served; err != nil {
					t.Error(err)
				}
			}()
			silent, err := net.Dial("unix", listener.Addr().String())
			if err != nil {
				t.Fatal(err)
			}
			defer func() { _ = silent.Close() }()
			if _, err := io.WriteString(silent, prefaceAndSettings); err != nil {
				t.Fatal(err)
			}
			_ = silent.SetReadDeadline(time.Now().Add(2 * time.Minute))
			began := time.Now()
			if _, err := io.Copy(io.Discard, silent); err != nil {
				t.Errorf("the server has not hung up: %v", err)
			}
			t.Logf("closed after %v", time.Since(began))
		})
	}
}
