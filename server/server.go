package server

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"sync"
	"sync/atomic"
	"time"

	"go.opentelemetry.io/otel/metric"
	"go.opentelemetry.io/otel/trace"
	"golang.org/x/time/rate"
	"google.golang.org/grpc"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/keepalive"
	"google.golang.org/grpc/reflection"

	"github.com/secret-sidecar/secret-sidecar/cache"
	secretsidecarv1 "github.com/secret-sidecar/secret-sidecar/gen/secretsidecar/v1"
	"github.com/secret-sidecar/secret-sidecar/internal/admission"
	"github.com/secret-sidecar/secret-sidecar/internal/audit"
	"github.com/secret-sidecar/secret-sidecar/internal/fleet"
	"github.com/secret-sidecar/secret-sidecar/internal/unixsocket"
	"github.com/secret-sidecar/secret-sidecar/vault"
	"github.com/secret-sidecar/secret-sidecar/vault/login"
)

const (
	// maxRequestBytes bounds one request message.
	maxRequestBytes = 1 << 20
	// maxConcurrentStreams bounds the requests in progress on one client connection.
	maxConcurrentStreams = 1000
	// streamWorkers is how many goroutines answer one request after the other. A new one for each
	// request would begin with a small stack, and growing it takes a quarter of the CPU of a cached
	// Resolve. A request that finds them all busy, with reads of Vault for example, gets a
	// goroutine of its own.
	streamWorkers = 32
	// maxHeaderBytes bounds the headers of one request, each counted with 32 bytes more, as HTTP/2
	// does. gRPC suggests as much; its default in Go is 16 MiB, held for as long as the request.
	maxHeaderBytes = 8 << 10
	// handshakeTimeout bounds how long a client may take to finish the HTTP/2 handshake.
	handshakeTimeout = 10 * time.Second
	// idleTimeout is when a connection without requests is closed. gRPC's clients connect again at the
	// next request.
	idleTimeout = 5 * time.Minute
	// minPingInterval is how often a client may ping; gRPC's default of 5 minutes disconnects eager
	// ones.
	minPingInterval = 10 * time.Second
	// streamGrace is how long open health watches live on after a stop has begun, so that
	// watchers hear NOT_SERVING but do not hold up the stop.
	streamGrace = 200 * time.Millisecond
	// A TestConnection with a spec makes the sidecar connect to where a caller says: a person does
	// that now and then.
	specTestEvery = 2 * time.Second
	specTestBurst = 30
	// hardStopGrace is how long requests that were cut off by the drain timeout may take to be
	// answered.
	hardStopGrace = 500 * time.Millisecond
)

// Options are what a Server keeps for its life.
type Options struct {
	// Logger receives what an operator needs to know. Nil discards.
	Logger *slog.Logger
	// Budget is the login budget to share with other users of the same Vaults in this process. Nil
	// is one of the Server's own.
	Budget *login.Budget
	// DrainTimeout is how long Serve waits for requests in progress when it stops. Zero is 10 s.
	DrainTimeout time.Duration
	// Audit is where every secret that is asked for, and every call that changes or tries something,
	// is written down. Nil is nowhere. The caller closes it after Serve.
	Audit *audit.Log
	// Version and Protections are what ListConnections says of the process.
	Version     string
	Protections []Protection
	// Fleet is the way to the other sidecars. Nil is no fleet. The caller closes it after Serve.
	Fleet *fleet.Fleet
	// Meter makes the metrics. Nil makes none.
	Meter metric.Meter
	// Tracer makes the spans of Vault's calls, below the span in a request's ctx, which
	// ServerOptions have to begin. Nil makes none.
	Tracer trace.Tracer
	// TracePaths puts the paths of secrets into the spans.
	TracePaths bool
	// ServerOptions are added to the gRPC server's, for example a stats handler.
	ServerOptions []grpc.ServerOption
}

// Protection is one hardening of the process; Err is why it is not in force, nil when it is.
type Protection struct {
	Name string
	Err  error
}

// Server answers the API. Make it with New, give it connections with Apply, run it with Serve. Its
// methods are safe for concurrent use.
type Server struct {
	secretsidecarv1.UnimplementedSecretServiceServer

	log           *slog.Logger
	budget        *login.Budget
	drainTimeout  time.Duration
	auditLog      *audit.Log                     // nil: there is none
	process       *secretsidecarv1.ProcessStatus // never changed
	meter         *callerMeter                   // of every caller
	specTests     *rate.Limiter                  // of all callers together
	readMemory    *vault.AnswerMemory            // of all connections together
	answers       *answers
	scans         *scanMeter // of every caller
	serverOptions []grpc.ServerOption
	admission     *admission.Admission
	grpc          *grpc.Server  // set by Serve: it has goroutines from the beginning
	unlisted      *grpc.Server  // set by Serve: answers those that no rule lists
	idleTimeout   time.Duration // when a connection without requests is closed
	health        *healthService
	cache         *cache.Cache[*vault.Secret]
	current       atomic.Pointer[snapshot]

	member  *member // nil: there is no fleet
	watches *watches

	unmatched    *counters // of requests that found no connection
	refusals     *refusals
	reloads      reloadCounts
	instruments  *instruments             // nil: no metrics
	specRecorder *recorder                // of Vaults that no configuration names; nil: no metrics
	observed     atomic.Pointer[snapshot] // what metrics show: current, and its last connections after the end
	tracer       trace.Tracer             // nil: no spans
	tracePaths   bool

	applying sync.Mutex // serialises Apply, takeOver and the end of Serve
	spaces   int        // guarded by applying: how many sessions were ever opened
	stopped  bool       // guarded by applying: no Apply any more

	counters map[string]*counters // guarded by applying: of every connection that ever was, by name

	closing sync.WaitGroup // the goroutines that close sessions which left

	healthMu sync.Mutex // serialises reportHealth
	started  bool       // guarded by healthMu: every required connection has logged in once
	draining bool       // guarded by healthMu: NOT_SERVING for good

	endStreams context.CancelFunc // ends the open health watches
}

// New makes a Server without connections. It opens nothing; the caller ends it with Serve.
func New(opts Options) (*Server, error) {
	secrets, err := cache.New(cache.Config[*vault.Secret]{
		Size: (*vault.Secret).Size,
		// The time is by Vault's clock, the cache goes by ours. When ours is behind, a copy may
		// answer for so long after Vault has deleted the version. When ours is ahead, a copy ends
		// early, and a version that Vault still has is read for each request. Both clocks are kept
		// by NTP; a margin would be a guess.
		ExpiresAt: (*vault.Secret).DeletedAt,
		Classify:  classify,
	})
	if err != nil {
		return nil, fmt.Errorf("make the cache: %w", err)
	}
	s := &Server{
		log:          opts.Logger,
		budget:       opts.Budget,
		drainTimeout: opts.DrainTimeout,
		auditLog:     opts.Audit,
		process:      processStatus(opts),
		meter:        newCallerMeter(),
		specTests:    rate.NewLimiter(rate.Every(specTestEvery), specTestBurst),
		scans:        newScanMeter(),
		readMemory:   vault.NewAnswerMemory(readMemory),
		answers:      newAnswers(),
		cache:        secrets,

		idleTimeout: idleTimeout,

		serverOptions: opts.ServerOptions,
		unmatched:     &counters{},
		refusals:      newRefusals(),
		counters:      map[string]*counters{},
		tracer:        opts.Tracer, tracePaths: opts.TracePaths,
	}
	if s.log == nil {
		s.log = slog.New(slog.DiscardHandler)
	}
	if s.budget == nil {
		s.budget = login.NewBudget()
	}
	if s.drainTimeout == 0 {
		s.drainTimeout = 10 * time.Second
	}
	s.member, s.watches = newMember(s, opts.Fleet), newWatches(s)
	s.show(&snapshot{})
	s.health = newHealthService(func(caller unixsocket.Peer, connection string) bool {
		return s.current.Load().mayKnow(caller, connection)
	})
	s.watchAudit()
	s.admission = newAdmission(s, admission.LimitsWithin(admission.MemoryLimit()))
	if opts.Meter == nil {
		return s, nil
	}
	if s.instruments, err = newMetrics(opts.Meter, s); err != nil {
		s.cache.Close()
		return nil, err
	}
	s.specRecorder = s.instruments.recorder("", "")
	return s, nil
}

// show makes the snapshot the running one.
func (s *Server) show(next *snapshot) {
	s.observed.Store(next)
	s.current.Store(next)
	s.watches.settingsChanged()
}

func (s *Server) newGRPCServer(streams context.Context, extra []grpc.ServerOption) *grpc.Server {
	options := append([]grpc.ServerOption{
		grpc.Creds(answerCredentials{unixsocket.Credentials(), s.answers}),
		grpc.ForceServerCodecV2(newAnswerCodec()),
		grpc.InTapHandle(s.admitStream),
		grpc.MaxRecvMsgSize(maxRequestBytes),
		grpc.MaxHeaderListSize(maxHeaderBytes),
		grpc.MaxConcurrentStreams(maxConcurrentStreams),
		grpc.ConnectionTimeout(handshakeTimeout),
		grpc.NumStreamWorkers(streamWorkers),
		grpc.KeepaliveParams(keepalive.ServerParameters{MaxConnectionIdle: s.idleTimeout}),
		grpc.KeepaliveEnforcementPolicy(pingsAllowed),
		grpc.ChainUnaryInterceptor(s.finishUnary),
		grpc.ChainStreamInterceptor(s.checkReflection, s.admitLong, endWith(streams)),
	}, extra...)
	g := grpc.NewServer(options...)
	secretsidecarv1.RegisterSecretServiceServer(g, s)
	healthpb.RegisterHealthServer(g, s.health)
	reflection.Register(g)
	return g
}

// pingsAllowed lets clients ping that have nothing to ask.
var pingsAllowed = keepalive.EnforcementPolicy{MinTime: minPingInterval, PermitWithoutStream: true}

// Serve answers requests on listener until ctx is done, then stops: health says NOT_SERVING,
// requests in progress are finished within the drain timeout and cut off after it, logins are ended
// and their tokens revoked, the cache is closed. It closes the listener. The error is the
// listener's; stopping is none.
func (s *Server) Serve(ctx context.Context, listener net.Listener) error {
	streams, end := context.WithCancel(context.Background())
	s.endStreams = end
	s.grpc = s.newGRPCServer(streams, s.serverOptions)
	s.unlisted = s.newUnlistedServer(streams)
	s.member.start()
	listed, others := s.admission.Split(listener)
	watching, endWatch := context.WithCancel(context.Background())
	var watch sync.WaitGroup
	watch.Go(func() { s.watchUnread(watching, unreadCheck, readPatience) })
	defer watch.Wait()
	defer endWatch()
	served := make(chan error, 1)
	go func() { served <- s.grpc.Serve(listed) }() // ends when stop has stopped the gRPC server
	var refusing sync.WaitGroup
	defer refusing.Wait()
	refusing.Go(func() { _ = s.unlisted.Serve(others) }) // its listener has no error of its own
	var err error
	select {
	case err = <-served:
		s.stop()
	case <-ctx.Done():
		s.stop()
		if err = <-served; errors.Is(err, grpc.ErrServerStopped) {
			err = nil // it was told to stop before it had begun
		}
	}
	if err != nil {
		return fmt.Errorf("serve gRPC: %w", err)
	}
	return nil
}

func (s *Server) stop() {
	s.log.Info("stopping", "drain_timeout", s.drainTimeout)
	s.reportDraining()
	s.drain()
	s.member.leave()
	s.watches.stop()
	s.closeSessions()
	s.log.Info("stopped")
}

// drain lets requests in progress finish. What still waits for Vault after the drain timeout is
// answered SHUTTING_DOWN by closing the cache under it.
func (s *Server) drain() {
	streams := time.AfterFunc(streamGrace, s.endStreams)
	defer streams.Stop()
	defer s.endStreams()
	watching, endWatch := context.WithCancel(context.Background())
	var watch sync.WaitGroup
	// What is not read now would hold up the stop.
	watch.Go(func() { s.watchUnread(watching, drainPatience/2, drainPatience) })
	defer watch.Wait()
	defer endWatch()
	drained := make(chan struct{})
	go func() { // ended by the Stops below at the latest
		defer close(drained)
		s.grpc.GracefulStop()
		s.unlisted.GracefulStop()
	}()
	if !closedWithin(drained, s.drainTimeout) {
		s.log.Warn("requests outlived the drain timeout and are cut off")
	}
	s.cache.Close()
	closedWithin(drained, hardStopGrace)
	s.grpc.Stop()
	s.unlisted.Stop()
	<-drained
}

// closedWithin reports whether done was closed within the time.
func closedWithin(done <-chan struct{}, limit time.Duration) bool {
	timer := time.NewTimer(limit)
	defer timer.Stop()
	select {
	case <-done:
		return true
	case <-timer.C:
		return false
	}
}

// closeSessions ends every login, side by side, and waits.
func (s *Server) closeSessions() {
	s.applying.Lock()
	s.stopped = true
	last := s.current.Swap(&snapshot{})
	s.applying.Unlock()
	for one := range last.sessions() {
		one.retire() // what the drain has not ended must not hold up the revocation
		one.release()
	}
	s.closing.Wait()
}
