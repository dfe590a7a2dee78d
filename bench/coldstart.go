package main

import (
	"context"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// coldStart describes one start of the product, timed from before its process existed.
type coldStart struct {
	// to the first answer, to the last login, to the first value of a secret
	Health, Ready, Secret time.Duration
	CPU                   time.Duration // of the process, until then
	Peak                  float64       // its resident memory until then at most, in MB
}

// start is one way of starting it.
type start struct {
	title    string
	v        vaultReady
	fromDisk bool // the program is in no page cache, as on a node that has just pulled the image
}

// measureColdStarts is `make bench-coldstart`. It interleaves the ways, round by round.
func measureColdStarts(ctx context.Context, s *stage, p plan, out io.Writer) error {
	ways, err := s.startsToMeasure(ctx, p)
	if err != nil {
		return err
	}
	all := make([][]coldStart, len(ways))
	var probes []float64
	for range p.starts {
		for i, way := range ways {
			one, probe, err := s.coldStart(ctx, way)
			if err != nil {
				return fmt.Errorf("%s: %w", way.title, err)
			}
			all[i], probes = append(all[i], one), append(probes, millis(probe))
		}
	}
	fmt.Fprintf(out, "%s; medians of %d starts, the most in brackets\n\n", machine(), p.starts)
	fmt.Fprint(out,
		"| start | first health answer | ready | first secret | CPU until then | peak memory "+
			"|\n|---|---|---|---|---|---|\n")
	for i, way := range ways {
		fmt.Fprintf(out, "| %s |", way.title)
		for _, of := range []func(coldStart) float64{
			func(c coldStart) float64 {
				return millis(c.Health)
			}, func(c coldStart) float64 { return millis(c.Ready) },
			func(c coldStart) float64 {
				return millis(c.Secret)
			}, func(c coldStart) float64 { return millis(c.CPU) },
		} {
			fmt.Fprintf(out, " %s |", inMillis(spreadOf(numbers(of, all[i]))))
		}
		fmt.Fprintf(out, " %.1f MB |\n", spreadOf(numbers(func(c coldStart) float64 {
			return c.Peak
		}, all[i])).Most)
	}
	fmt.Fprintf(out, "\nOne `secret-sidecar health`, which a probe runs, takes %s.\n",
		inMillis(spreadOf(probes)))
	return nil
}

func numbers(of func(coldStart) float64, all []coldStart) []float64 {
	values := make([]float64, len(all))
	for i, one := range all {
		values[i] = of(one)
	}
	return values
}

func inMillis(s spread) string { return fmt.Sprintf("%.1f ms (%.1f)", s.Median, s.Most) }

// startsToMeasure starts the Vaults, and copies the program to a file whose pages nothing else
// uses.
func (s *stage) startsToMeasure(ctx context.Context, p plan) ([]start, error) {
	text, err := os.ReadFile(p.binary)
	if err != nil {
		return nil, err
	}
	s.binary = filepath.Join(s.directory, "secret-sidecar")
	if err := os.WriteFile(s.binary, text, 0o755); err != nil {
		return nil, err
	}
	if _, err := s.startVault(&s.quick, "0"); err != nil {
		return nil, err
	}
	ways := []start{{"development Vault", s.quick, false},
		{"the same, program read from disk", s.quick, true}}
	if p.vault == "" {
		say("there is no real Vault to log in to: make real-vault builds it")
		return ways, nil
	}
	v, err := s.startRealVault(ctx, p.vault)
	return append(ways, start{"real Vault", v, false}), err
}

// coldStart starts the product once, and ends it. probe is how long one `health` took afterwards.
func (s *stage) coldStart(ctx context.Context,
	way start) (one coldStart, probe time.Duration, err error) {
	if way.fromDisk {
		if err := forget(s.binary); err != nil {
			return coldStart{}, 0, err
		}
	}
	began := time.Now()
	sidecar, socket, err := s.launch("connections:\n" + connection("prod", way.v))
	if err != nil {
		return coldStart{}, 0, err
	}
	defer sidecar.stop()
	if err := answers(ctx, socket, "liveness"); err != nil {
		return coldStart{}, 0, err
	}
	one.Health = time.Since(began)
	if err := answers(ctx, socket, ""); err != nil {
		return coldStart{}, 0, err
	}
	one.Ready = time.Since(began)
	clients, err := s.dial(socket, 1)
	if err != nil {
		return coldStart{}, 0, err
	}
	if err := resolve(clients, requests("prod", usualSize, 0, 1))(ctx, 0, 0); err != nil {
		return coldStart{}, 0, err
	}
	one.Secret = time.Since(began)
	one.CPU, one.Peak = sidecar.runTime(), sidecar.peak()

	began = time.Now()
	health := exec.CommandContext(ctx, s.binary, "health", "--socket", socket)
	health.Env = []string{"HOME=" + s.directory}
	if output, err := health.CombinedOutput(); err != nil {
		return coldStart{}, 0, fmt.Errorf("%w: %s", err, output)
	}
	return one, time.Since(began), nil
}

// forget drops a file's pages from memory.
func forget(path string) error {
	file, err := os.Open(path)
	if err != nil {
		return err
	}
	defer func() { _ = file.Close() }()
	if err := file.Sync(); err != nil { // only clean pages can be dropped
		return err
	}
	return unix.Fadvise(int(file.Fd()), 0, 0, unix.FADV_DONTNEED)
}

// runTime is the time that the process's threads have run, to the nanosecond; see proc(5),
// schedstat.
func (p *process) runTime() time.Duration {
	threads, _ := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/schedstat", p.command.Process.Pid))
	var total int64
	for _, thread := range threads {
		text, _ := os.ReadFile(thread)
		ran, _, _ := strings.Cut(string(text), " ")
		n, _ := strconv.ParseInt(ran, 10, 64)
		total += n
	}
	return time.Duration(total)
}

// peak returns the most memory that the process has had, in MB.
func (p *process) peak() float64 {
	text, _ := os.ReadFile(fmt.Sprintf("/proc/%d/status", p.command.Process.Pid))
	_, after, _ := strings.Cut(string(text), "VmHWM:")
	fields := strings.Fields(after)
	if len(fields) == 0 {
		return 0
	}
	kib, _ := strconv.ParseFloat(fields[0], 64)
	return kib * 1024 / 1e6
}
