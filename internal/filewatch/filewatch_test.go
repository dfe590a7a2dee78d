package filewatch

import (
	"context"
	"os"
	"path/filepath"
	"testing"
	"time"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// start watches file until the end of the test; the channel gets a value for each report.
func start(t *testing.T, files ...string) <-chan struct{} {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	reports := make(chan struct{}, 100)
	done := make(chan struct{})
	w := New(files) // what is seen now is the beginning, whenever the goroutine starts
	go func() {
		w.Run(ctx, func() { reports <- struct{}{} })
		close(done)
	}()
	t.Cleanup(func() {
		cancel()
		<-done
	})
	return reports
}

func wantReport(t *testing.T, reports <-chan struct{}) {
	t.Helper()
	select {
	case <-reports:
	case <-time.After(5 * time.Second):
		t.Fatal("no report")
	}
}

func write(t *testing.T, name, text string) {
	t.Helper()
	if err := os.WriteFile(name, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}

func rename(t *testing.T, from, to string) {
	t.Helper()
	if err := os.Rename(from, to); err != nil {
		t.Fatal(err)
	}
}

func link(t *testing.T, target, name string) {
	t.Helper()
	if err := os.Symlink(target, name); err != nil {
		t.Fatal(err)
	}
}

func TestWriteInPlaceIsReported(t *testing.T) {
	file := filepath.Join(t.TempDir(), "f")
	write(t, file, "one")
	reports := start(t, file)
	write(t, file, "two")
	wantReport(t, reports)
}

func TestAtomicRenameIsReportedAgainAndAgain(t *testing.T) {
	dir := t.TempDir()
	file := filepath.Join(dir, "f")
	write(t, file, "one")
	reports := start(t, file)
	for range 3 {
		write(t, file+".new", "two")
		rename(t, file+".new", file)
		wantReport(t, reports)
	}
}

func TestKubernetesSymlinkSwapIsReportedAgainAndAgain(t *testing.T) {
	dir := t.TempDir()
	at := func(name string) string { return filepath.Join(dir, name) }
	publish := func(version string) {
		if err := os.Mkdir(at(version), 0o700); err != nil {
			t.Fatal(err)
		}
		write(t, filepath.Join(at(version), "f"), "same text")
		link(t, version, at("..data_tmp"))
		rename(t, at("..data_tmp"), at("..data"))
	}
	publish("..1")
	link(t, "..data/f", at("f"))
	reports := start(t, at("f"))
	for _, version := range []string{"..2", "..3", "..4"} {
		publish(version)
		wantReport(t, reports)
	}
}

func TestCreationAndRemovalAreReported(t *testing.T) {
	file := filepath.Join(t.TempDir(), "f")
	reports := start(t, file)
	write(t, file, "one")
	wantReport(t, reports)
	if err := os.Remove(file); err != nil {
		t.Fatal(err)
	}
	wantReport(t, reports)
}

func TestOtherFilesAndBareLooksAreNotReported(t *testing.T) {
	dir := t.TempDir()
	file := filepath.Join(dir, "f")
	write(t, file, "one")
	reports := start(t, file)
	write(t, filepath.Join(dir, "other"), "x")
	if _, err := os.ReadFile(file); err != nil {
		t.Fatal(err)
	}
	select {
	case <-reports:
		t.Error("reported a change that was none")
	case <-time.After(4 * settle):
	}
}

func TestChangesCloseTogetherAreOneReport(t *testing.T) {
	dir := t.TempDir()
	a, b := filepath.Join(dir, "a"), filepath.Join(dir, "b")
	reports := start(t, a, b)
	began := time.Now()
	for range 10 {
		write(t, a, "x")
		write(t, b, "y")
	}
	wantReport(t, reports)
	// A busy machine may let a file be quiet for longer than settle between two writes.
	pauses := int(time.Since(began) / settle)
	for more := 1; ; more++ {
		select {
		case <-reports:
		case <-time.After(4 * settle):
			return
		}
		if more > pauses {
			t.Fatalf("%d reports, with %d pauses at most", more+1, pauses)
		}
	}
}

func TestAChangeBetweenNewAndRunIsReported(t *testing.T) {
	file := filepath.Join(t.TempDir(), "f")
	write(t, file, "one")
	w := New([]string{file})
	write(t, file, "another")
	ctx, cancel := context.WithCancel(t.Context())
	reports := 0
	w.Run(ctx, func() {
		reports++
		cancel()
	})
	if reports != 1 {
		t.Errorf("%d reports, want 1", reports)
	}
}

func TestADirectoryThatAppearsLaterIsFoundByLooking(t *testing.T) {
	file := filepath.Join(t.TempDir(), "later", "f")
	w := New([]string{file})
	defer w.Close()
	reported := 0
	if err := os.Mkdir(filepath.Dir(file), 0o700); err != nil {
		t.Fatal(err)
	}
	write(t, file, "x")
	w.look(func() { reported++ })
	w.look(func() { reported++ })
	if reported != 1 {
		t.Errorf("%d reports, want 1", reported)
	}
}
