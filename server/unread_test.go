package server_test

import (
	"context"
	"net/http"
	"strconv"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/encoding/gzip"

	secretsidecarv1 "github.com/secret-sidecar/secret-sidecar/gen/secretsidecar/v1"
	"github.com/secret-sidecar/secret-sidecar/server"
)

// startLarge serves secrets of 900 kB, four of which fill an answer.
func startLarge(t *testing.T, limits server.CallerLimits) (*sidecar, *secretsidecarv1.BatchResolveRequest) {
	t.Helper()
	v := newVault(t)
	request := &secretsidecarv1.BatchResolveRequest{}
	for i := range 4 {
		path := "secret/data/large" + strconv.Itoa(i)
		v.write(t, path, map[string]any{"k": strings.Repeat("x", 900<<10)})
		request.Requests = append(request.Requests, &secretsidecarv1.ResolveRequest{Path: path + "/k"})
	}
	v.write(t, "secret/data/small", map[string]any{"k": "v"})
	s := start(t, server.Settings{Connections: []server.Connection{v.connection("prod")}, CallerLimits: limits})
	if _, err := s.BatchResolve(t.Context(), request); err != nil {
		t.Fatal(err)
	}
	s.resolve(t, "secret/data/small/k")
	return s, request
}

// dialSlow opens a channel whose streams take 64 KiB that nobody reads, and no more.
func dialSlow(t *testing.T, socket string) *grpc.ClientConn {
	t.Helper()
	channel, err := grpc.NewClient("unix:"+socket, grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithStaticStreamWindowSize(64<<10))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = channel.Close() })
	return channel
}

// unreadOn asks and does not read: of the answer only what fits a stream's window leaves. When it
// returns, the server has nothing left to do but to send.
func unreadOn(t *testing.T, channel *grpc.ClientConn, request any, options ...grpc.CallOption) grpc.ClientStream {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	t.Cleanup(cancel)
	stream, err := channel.NewStream(ctx, &grpc.StreamDesc{ServerStreams: true},
		secretsidecarv1.SecretService_BatchResolve_FullMethodName, options...)
	if err != nil {
		t.Fatal(err)
	}
	if err := stream.SendMsg(request); err != nil {
		t.Fatal(err)
	}
	if err := stream.CloseSend(); err != nil {
		t.Fatal(err)
	}
	_, _ = stream.Header() // the handler has returned
	return stream
}

// read reads what unreadOn has not.
func read(stream grpc.ClientStream) error {
	return stream.RecvMsg(&secretsidecarv1.BatchResolveResponse{})
}

// awaitCode asks until the answer has the code.
func awaitCode(t *testing.T, want codes.Code, ask func() error) (err error) {
	t.Helper()
	for deadline := time.Now().Add(20 * time.Second); time.Now().Before(deadline); {
		if err = ask(); codeOf(err) == want {
			return err
		}
	}
	t.Fatalf("got %v, want %v", err, want)
	return nil
}

func (s *sidecar) askSmall(ctx context.Context) error {
	_, err := s.Resolve(ctx, &secretsidecarv1.ResolveRequest{Path: "secret/data/small/k"})
	return err
}

func TestARequestCountsUntilItsAnswerHasLeft(t *testing.T) {
	s, request := startLarge(t, server.CallerLimits{InFlight: 2})
	slow := dialSlow(t, s.socket)
	first, second := unreadOn(t, slow, request), unreadOn(t, slow, request)
	err := awaitCode(t, codes.ResourceExhausted, func() error { return s.askSmall(t.Context()) })
	wantProblem(t, err, codes.ResourceExhausted, "RATE_LIMITED")
	for range 20 { // the handlers have returned long ago
		if err := s.askSmall(t.Context()); codeOf(err) != codes.ResourceExhausted {
			t.Fatalf("got %v while two answers are unread", err)
		}
	}
	for _, stream := range []grpc.ClientStream{first, second} {
		if err := read(stream); err != nil {
			t.Fatal(err)
		}
	}
	_ = awaitCode(t, codes.OK, func() error { return s.askSmall(t.Context()) })
	// So does one that the client gives up, and one whose connection ends.
	unreadOn(t, slow, request)
	unreadOn(t, slow, request)
	_ = awaitCode(t, codes.ResourceExhausted, func() error { return s.askSmall(t.Context()) })
	_ = slow.Close()
	_ = awaitCode(t, codes.OK, func() error { return s.askSmall(t.Context()) })
}

func TestUnreadAnswersAreBoundedForEachConnection(t *testing.T) {
	for name, options := range map[string][]grpc.CallOption{
		"plain": nil, "compressed": {grpc.UseCompressor(gzip.Name)},
	} {
		t.Run(name, func(t *testing.T) {
			s, request := startLarge(t, server.CallerLimits{})
			slow := dialSlow(t, s.socket)
			for range 10 {
				unreadOn(t, slow, request, options...)
			}
			client := secretsidecarv1.NewSecretServiceClient(slow)
			err := awaitCode(t, codes.ResourceExhausted, func() error {
				_, err := client.BatchResolve(t.Context(), request)
				return err
			})
			wantProblem(t, err, codes.ResourceExhausted, "OVERLOADED")
			// Others are not affected.
			if _, err := s.BatchResolve(t.Context(), request); err != nil {
				t.Errorf("another connection: %v", err)
			}
			_ = slow.Close()
		})
	}
}

func TestUnreadAnswersOfAllLeaveRoomForSmallOnes(t *testing.T) {
	s, request := startLarge(t, server.CallerLimits{})
	for range 5 {
		slow := dialSlow(t, s.socket)
		for range 3 {
			unreadOn(t, slow, request)
		}
	}
	err := awaitCode(t, codes.ResourceExhausted, func() error {
		_, err := s.Resolve(t.Context(), &secretsidecarv1.ResolveRequest{Path: "secret/data/large0/k"})
		return err
	})
	wantProblem(t, err, codes.ResourceExhausted, "OVERLOADED")
	for range 100 {
		if err := s.askSmall(t.Context()); err != nil {
			t.Fatalf("a small answer: %v", err)
		}
	}
}

func TestAStopDoesNotWaitForAClientThatDoesNotRead(t *testing.T) {
	s, request := startLarge(t, server.CallerLimits{})
	unreadOn(t, dialSlow(t, s.socket), request)
	began := time.Now()
	s.stop()
	if err := <-s.served; err != nil {
		t.Error(err)
	}
	s.served <- nil
	if took := time.Since(began); took > drainTimeout/2 {
		t.Errorf("the stop took %v", took)
	}
}

func TestGivenUpAndFailedRequestsLeaveNothingCounted(t *testing.T) {
	v := newVault(t)
	v.write(t, "secret/data/mysec", map[string]any{"k": strings.Repeat("x", 200<<10)})
	s := start(t, server.Settings{Connections: []server.Connection{v.connection("prod")},
		CallerLimits: server.CallerLimits{InFlight: 1}})
	for i := range 200 {
		ctx, cancel := context.WithCancel(t.Context())
		if i%2 == 0 {
			time.AfterFunc(time.Duration(i)*10*time.Microsecond, cancel)
		}
		_, _ = s.Resolve(ctx, &secretsidecarv1.ResolveRequest{Path: "secret/data/mysec/k"})
		_, _ = s.Resolve(ctx, &secretsidecarv1.ResolveRequest{Path: "nonsense"})
		cancel()
	}
	v.answers(http.StatusForbidden, `{"errors":["permission denied"]}`)
	_ = awaitCode(t, codes.OK, func() error {
		_, err := s.Resolve(t.Context(), &secretsidecarv1.ResolveRequest{Path: "secret/data/mysec/k"})
		return err
	})
}
