package client_test

import (
	"errors"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc"

	"github.com/secret-sidecar/secret-sidecar/client"
	"github.com/secret-sidecar/secret-sidecar/client/clienttest"
	secretsidecarv1 "github.com/secret-sidecar/secret-sidecar/gen/secretsidecar/v1"
)

// serve runs a sidecar on a socket until the function that it returns is called.
func serve(t *testing.T, socket string, sidecar secretsidecarv1.SecretServiceServer) (stop func()) {
	t.Helper()
	listener, err := net.Listen("unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	server := grpc.NewServer()
	secretsidecarv1.RegisterSecretServiceServer(server, sidecar)
	served := make(chan struct{})
	go func() { // ends with Stop
		defer close(served)
		_ = server.Serve(listener)
	}()
	return func() { server.Stop(); <-served }
}

// shortDir is a directory whose path leaves room for a socket's name.
func shortDir(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "client-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	return dir
}

func TestEveryFormOfASocketIsTaken(t *testing.T) {
	_, sidecar := clienttest.New(t, map[string]string{reference: value})
	socket := filepath.Join(shortDir(t), "a socket?%.sock")
	t.Cleanup(serve(t, socket, sidecar))
	get := func(options ...client.OpenOption) {
		t.Helper()
		c, err := client.Open(t.Context(), options...)
		if err != nil {
			t.Error(err)
			return
		}
		defer c.Close() //nolint:errcheck // it was used
		if got, err := c.Get(t.Context(), reference); err != nil || got != value {
			t.Errorf("%q, %v", got, err)
		}
	}
	for _, form := range []string{socket, "unix:" + socket, "unix://" + socket} {
		get(client.Socket(form))
		t.Setenv(client.SocketEnv, form)
		get()
	}
	for _, form := range []string{"unix:", "unix://", "unix://relative.sock", "http://localhost:1",
		"dns:///x"} {
		if _, err := client.Open(t.Context(), client.Socket(form)); err == nil {
			t.Errorf("%q was taken", form)
		}
	}
}

func TestOpenSaysWhyThereIsNoSidecar(t *testing.T) {
	dir := shortDir(t)
	deaf := filepath.Join(dir, "deaf.sock")
	listener, err := net.Listen("unix", deaf)
	if err != nil {
		t.Fatal(err)
	}
	listener.(*net.UnixListener).SetUnlinkOnClose(false)
	_ = listener.Close()
	for socket, want := range map[string]string{filepath.Join(dir,
		"none.sock"): "no sidecar answers at", deaf: "no sidecar answers at"} {
		_, err := client.Open(t.Context(), client.Socket(socket), client.Wait(50*time.Millisecond))
		if !errors.Is(err, client.ErrSidecarUnreachable) || !strings.Contains(err.Error(), want) ||
			!strings.Contains(err.Error(), socket) {
			t.Errorf("the error is %v", err)
		}
	}
}

func TestACallWaitsForASidecarThatComesBack(t *testing.T) {
	_, sidecar := clienttest.New(t, map[string]string{reference: value})
	socket := filepath.Join(shortDir(t), "sidecar.sock")
	stop := serve(t, socket, sidecar)
	c, err := client.Open(t.Context(), client.Socket(socket))
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close() //nolint:errcheck // it was used
	for range 3 {
		stop()
		failed := make(chan error, 10)
		for range cap(failed) {
			go func() { // ends with its call
				_, err := c.Get(t.Context(), reference, client.Timeout(time.Minute))
				failed <- err
			}()
		}
		stop = serve(t, socket, sidecar)
		for range cap(failed) {
			if err := <-failed; err != nil {
				t.Error(err)
			}
		}
	}
	stop()
	_, err = c.Get(t.Context(), reference, client.Timeout(100*time.Millisecond))
	if !errors.Is(err, client.ErrSidecarUnreachable) || !strings.Contains(err.Error(), socket) {
		t.Errorf("without a sidecar: %v", err)
	}
}
