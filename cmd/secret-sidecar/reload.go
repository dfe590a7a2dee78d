package main

import (
	"context"
	"log/slog"
	"os"
	"os/signal"
	"sync"
	"syscall"

	"github.com/secret-sidecar/secret-sidecar/config"
	"github.com/secret-sidecar/secret-sidecar/internal/filewatch"
	"github.com/secret-sidecar/secret-sidecar/server"
)

// catchHangups makes SIGHUP a request to reload for the rest of the process. It never ends the
// process, not even while that starts or stops. One pending request covers all earlier ones.
func catchHangups() chan os.Signal {
	hangups := make(chan os.Signal, 1)
	signal.Notify(hangups, syscall.SIGHUP)
	return hangups
}

// reloader applies a changed configuration to the running sidecar. reload is called by one
// goroutine.
type reloader struct {
	source   configSource
	sidecar  *server.Server
	log      *slog.Logger
	levels   *sidecarLog
	atStart  config.AtStart // what the process was started with
	auditing *auditing

	watcher  *filewatch.Watcher // of the file, since before it was read; nil when there is none
	triggers chan os.Signal
}

// reloading is a reloader at work.
type reloading struct {
	cancel  context.CancelFunc
	running sync.WaitGroup
}

// startReloading reloads at every SIGHUP and every change of the file, until stop.
func startReloading(ctx context.Context, r *reloader) *reloading {
	ctx, cancel := context.WithCancel(ctx)
	work := &reloading{cancel: cancel}
	work.running.Go(func() { r.reloadOn(ctx) })
	if r.watcher != nil {
		work.running.Go(func() { r.watcher.Run(ctx, r.fileChanged) })
	}
	return work
}

// stop ends the goroutines and waits for them.
func (w *reloading) stop() {
	w.cancel()
	w.running.Wait()
}

func (r *reloader) reloadOn(ctx context.Context) {
	for {
		select {
		case <-ctx.Done():
			return
		case <-r.triggers:
			r.reload(ctx)
		}
	}
}

func (r *reloader) fileChanged() {
	select {
	case r.triggers <- syscall.SIGHUP:
	default:
	}
}

// reload applies the configuration, or refuses it and changes nothing. It does not wait for Vault:
// what needs a login takes effect by itself once there is one.
func (r *reloader) reload(ctx context.Context) {
	r.auditing.reopen(r.log)
	next, err := r.source.load()
	if err == nil {
		err = r.sidecar.Apply(next.Settings)
	}
	if ctx.Err() != nil {
		return
	}
	r.sidecar.CountReload(err)
	if err != nil {
		r.log.Error("the changed configuration is refused, the running one stays", "from",
			r.source.String(), "error", err)
		return
	}
	r.levels.follow(next)
	warnOfRisks(r.log, next)
	for _, key := range r.atStart.Changed(next.AtStart) {
		r.log.Warn("a change takes effect at the next start only", "key", key)
	}
	r.log.Info("configuration reloaded", "from", r.source.String(), "connections",
		len(next.Connections))
}
