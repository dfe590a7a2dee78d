package main

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// process is a server under measurement.
type process struct {
	command *exec.Cmd
	control *http.Client // of its statistics; nil where it has none
}

// startProcess starts a server that ends when this process does.
func startProcess(command *exec.Cmd) (*process, error) {
	command.Stderr = os.Stderr
	command.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := command.Start(); err != nil {
		return nil, err
	}
	return &process{command: command}, nil
}

// startSelf starts this binary as a server, hands it the input, and waits until it reports ready.
func startSelf(input, ready any, args ...string) (*process, error) {
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	command := exec.Command(self, append([]string{"serve"}, args...)...)
	text, err := json.Marshal(input)
	if err != nil {
		return nil, err
	}
	command.Stdin = strings.NewReader(string(text))
	output, err := command.StdoutPipe()
	if err != nil {
		return nil, err
	}
	p, err := startProcess(command)
	if err != nil {
		return nil, err
	}
	line, err := bufio.NewReader(output).ReadBytes('\n')
	if err != nil {
		p.stop()
		return nil, fmt.Errorf("wait for %v: %w", args, err)
	}
	return p, json.Unmarshal(line, ready)
}

// stop ends the process and waits for it.
func (p *process) stop() {
	_ = p.command.Process.Signal(syscall.SIGTERM)
	_ = p.command.Wait()
}

// kill ends the process without a chance to clean up.
func (p *process) kill() {
	_ = p.command.Process.Kill()
	_ = p.command.Wait()
}

// again starts the same server once more.
func (p *process) again() (*process, error) {
	command := exec.Command(p.command.Path, p.command.Args[1:]...)
	command.Env = p.command.Env
	return startProcess(command)
}

// withStats makes the process's statistics available on a socket.
func (p *process) withStats(socket string) *process {
	p.control = &http.Client{Transport: &http.Transport{
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return (&net.Dialer{}).DialContext(ctx, "unix", socket)
		},
	}}
	return p
}

// open sends a request to the process. The caller closes the body.
func (p *process) open(ctx context.Context, path string) (*http.Response, error) {
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://process"+path,
		http.NoBody)
	if err != nil {
		return nil, err
	}
	return p.control.Do(request)
}

// stats returns the process's statistics; with gc, after a garbage collection.
func (p *process) stats(ctx context.Context, gc bool) (processStats, error) {
	path := "/stats"
	if gc {
		path += "?gc"
	}
	answer, err := p.open(ctx, path)
	if err != nil {
		return processStats{}, err
	}
	defer func() { _ = answer.Body.Close() }()
	var stats processStats
	return stats, json.NewDecoder(answer.Body).Decode(&stats)
}

// ticksPerSecond is the unit of CPU time in /proc on every Linux of today; see proc(5).
const ticksPerSecond = 100

// cpu returns the CPU time that the process has used; 0 for none.
func (p *process) cpu() time.Duration {
	if p == nil {
		return 0
	}
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", p.command.Process.Pid))
	if err != nil {
		return 0
	}
	_, after, _ := strings.Cut(string(text), ") ") // the name before it may hold anything
	fields := strings.Fields(after)
	const utime, stime = 11, 12
	var ticks int64
	for _, field := range []int{utime, stime} {
		n, _ := strconv.ParseInt(fields[field], 10, 64)
		ticks += n
	}
	return time.Duration(ticks) * time.Second / ticksPerSecond
}

// resident returns the process's resident memory in MB; 0 when unknown.
func (p *process) resident() float64 {
	if p == nil {
		return 0
	}
	text, _ := os.ReadFile(fmt.Sprintf("/proc/%d/statm", p.command.Process.Pid))
	fields := strings.Fields(string(text))
	if len(fields) < 2 {
		return 0
	}
	pages, _ := strconv.ParseInt(fields[1], 10, 64)
	return float64(pages*int64(os.Getpagesize())) / 1e6
}
