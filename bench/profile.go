package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
)

// profile writes profiles of a server that answers cached Resolves to 64 callers, and shows where
// each begins.
func profile(ctx context.Context, s *stage, p plan) error {
	if err := s.setUp(ctx); err != nil {
		return err
	}
	if err := os.MkdirAll(p.profile, 0o755); err != nil {
		return err
	}
	hosted, clients, err := s.startHosted(ctx, 0, "-contention")
	if err != nil {
		return err
	}
	hits := requests("few", usualSize, 0, usual)
	loaded, stop := context.WithCancel(ctx)
	defer stop()
	driven := make(chan error, 1)
	go func() {
		driven <- drive(loaded, resolve(clients, hits), 64, times(1<<30), nil)
	}()
	kinds := []struct{ name, path, sample string }{
		{"cpu", fmt.Sprintf("/debug/pprof/profile?seconds=%.0f", p.profileFor.Seconds()), ""},
		{"heap", "/debug/pprof/heap", "alloc_space"},
		{"mutex", "/debug/pprof/mutex", ""},
		{"block", "/debug/pprof/block", ""},
	}
	for _, kind := range kinds {
		file := filepath.Join(p.profile, kind.name+".pprof")
		if err := save(ctx, hosted, kind.path, file); err != nil {
			return fmt.Errorf("read the %s profile: %w", kind.name, err)
		}
		fmt.Printf("\n%s: go tool pprof -http=: %s\n", kind.name, file)
		args := []string{"tool", "pprof", "-top", "-nodecount=12"}
		if kind.sample != "" {
			args = append(args, "-sample_index="+kind.sample)
		}
		show := exec.CommandContext(ctx, "go", append(args, file)...)
		show.Stdout = os.Stdout
		if err := show.Run(); err != nil {
			return err
		}
	}
	select {
	case err := <-driven: // it had to go on for ever
		return fmt.Errorf("the load ended: %w", err)
	default:
		stop()
		<-driven //nolint:errcheck // its calls were cut off
		return nil
	}
}

// save writes what the process answers to a file.
func save(ctx context.Context, from *process, path, file string) error {
	answer, err := from.open(ctx, path)
	if err != nil {
		return err
	}
	defer func() { _ = answer.Body.Close() }()
	if answer.StatusCode != http.StatusOK {
		return fmt.Errorf("%s: %s", path, answer.Status)
	}
	out, err := os.Create(file)
	if err != nil {
		return err
	}
	_, err = io.Copy(out, answer.Body)
	return errors.Join(err, out.Close())
}
