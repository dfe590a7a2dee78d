package main

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"os/exec"
	"sync"
	"syscall"
	"time"
)

const (
	// stopTimeout is how long a process may take to end after SIGTERM.
	stopTimeout = 10 * time.Second
	// pollInterval is how often something that starts is asked whether it is there.
	pollInterval = 50 * time.Millisecond
)

// process is a program that runs beside the demo.
type process struct {
	name string
	stop context.CancelFunc
	done chan struct{} // closed when it has ended
	log  *lockedBuffer // what it wrote, but to stdout if that is looked at
}

// startProcess starts the program with nothing but the given environment. What it prints goes to
// stdout; nil keeps it with the log.
func startProcess(name string, stdout io.Writer, env []string, program string,
	args ...string) (*process, error) {
	ctx, stop := context.WithCancel(context.Background())
	p := &process{name: name, stop: stop, done: make(chan struct{}), log: &lockedBuffer{}}
	command := exec.CommandContext(ctx, program, args...)
	command.Env = env
	command.Stdout, command.Stderr = stdout, p.log
	if stdout == nil {
		command.Stdout = p.log
	}
	command.Cancel = func() error { return command.Process.Signal(syscall.SIGTERM) }
	command.WaitDelay = stopTimeout
	if err := command.Start(); err != nil {
		stop()
		return nil, fmt.Errorf("start %s: %w", name, err)
	}
	go func() { // ends with the process, which end waits for
		_ = command.Wait() // it is stopped by a signal
		close(p.done)
	}()
	return p, nil
}

// end stops the process and waits for it.
func (p *process) end() {
	p.stop()
	<-p.done
}

// waitFor asks ready until it says yes, the process ends, or ctx is done.
func (p *process) waitFor(ctx context.Context, what string, ready func() bool) error {
	tick := time.NewTicker(pollInterval)
	defer tick.Stop()
	for !ready() {
		select {
		case <-tick.C:
		case <-p.done:
			return fmt.Errorf("%s ended before %s; it wrote:\n%s", p.name, what, p.log)
		case <-ctx.Done():
			return fmt.Errorf("wait for %s: %w; it wrote:\n%s", what, ctx.Err(), p.log)
		}
	}
	return nil
}

// lockedBuffer is a bytes.Buffer that is safe for concurrent use.
type lockedBuffer struct {
	mu   sync.Mutex
	text bytes.Buffer // guarded by mu
}

// Write implements io.Writer.
func (b *lockedBuffer) Write(text []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.text.Write(text)
}

// String returns what was written so far.
func (b *lockedBuffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.text.String()
}
