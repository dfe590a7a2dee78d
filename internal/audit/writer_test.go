package audit

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

// openOn opens a log of a file that the test replaces by what fails or hangs.
func openOn(required bool, file disk) *Log {
	return newLog("/var/log/audit.log", Options{Required: required}, file)
}

// fakeDisk is a file of memory.
type fakeDisk struct {
	hung chan struct{} // nil: it does not hang

	mu      sync.Mutex
	full    bool            // guarded by mu
	partial int             // how many bytes of a write fit while it is full
	held    strings.Builder // guarded by mu
}

func (d *fakeDisk) Write(p []byte) (int, error) {
	if d.hung != nil {
		<-d.hung
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.full {
		n := min(d.partial, len(p))
		d.held.Write(p[:n])
		return n, errors.New("no space left on device")
	}
	return d.held.Write(p)
}

func (d *fakeDisk) makeRoom() {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.full = false
}

func (d *fakeDisk) text() string {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.held.String()
}

func (d *fakeDisk) Close() error { return nil }

func TestAFullDiskIsAnErrorAndHealsByItself(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := &fakeDisk{full: true, partial: 10}
		l := openOn(true, d)
		told := make(chan error, 10)
		l.OnChange(func(err error) { told <- err })
		for range 3 {
			if err := l.Write(t.Context(), Entry{Path: "one"}); err == nil {
				t.Fatal("a line that is not there is no error")
			}
		}
		if err := l.Err(); err == nil || l.Lost() != 3 {
			t.Errorf("the state is %v, %d lines are lost", err, l.Lost())
		}
		d.makeRoom()
		time.Sleep(2 * retryAfter)
		synctest.Wait()
		if err := l.Err(); err != nil {
			t.Errorf("with room again, nobody asking: %v", err)
		}
		if err := l.Write(t.Context(), Entry{Path: "two"}); err != nil {
			t.Fatal(err)
		}
		if failure, end := <-told, <-told; failure == nil || end != nil || len(told) > 0 {
			t.Errorf("told %v and %v, want the failure and its end", failure, end)
		}
		text := d.text()
		torn, _, _ := strings.Cut(text, outcomeLost)
		whole := text[strings.LastIndex(torn, "\n")+1:]
		if !strings.Contains(whole, `"outcome":"LINES_LOST","count":3}`) ||
			strings.Count(whole, "\n") != 2 {
			t.Errorf("the file holds %q", text)
		}
		if err := l.Close(); err != nil {
			t.Fatal(err)
		}
	})
}

func TestADiskThatHangsHoldsUpACallerWithinItsDeadlineOnly(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := &fakeDisk{hung: make(chan struct{})}
		l := openOn(true, d)
		began := time.Now()
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if err := l.Write(ctx, Entry{}); err == nil || time.Since(began) != time.Second {
			t.Errorf("after %v: %v", time.Since(began), err)
		}
		if err := l.Write(t.Context(), Entry{}); err == nil ||
			time.Since(began) > time.Second+writePatience {
			t.Errorf("without a deadline, after %v: %v", time.Since(began), err)
		}
		began = time.Now()
		if err := l.Write(t.Context(), Entry{}); err == nil || time.Since(began) != 0 {
			t.Errorf("once it is known, after %v: %v", time.Since(began), err)
		}
		if err := l.Err(); err == nil || !strings.Contains(err.Error(), "/var/log/audit.log") {
			t.Errorf("the state is %v", err)
		}
		if err := l.Reopen(); err == nil {
			t.Error("it is opened again while it hangs")
		}
		close(d.hung)
		synctest.Wait()
		if err := l.Write(t.Context(), Entry{}); err != nil || l.Err() != nil {
			t.Errorf("when it answers again: %v, %v", err, l.Err())
		}
		if err := l.Close(); err != nil {
			t.Fatal(err)
		}
	})
}

func TestADiskThatHangsHoldsUpNobodyWhereTheLogIsNotRequired(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := &fakeDisk{hung: make(chan struct{})}
		l := openOn(false, d)
		began := time.Now()
		path := strings.Repeat("x", 1000)
		for range 10_000 {
			if err := l.Write(t.Context(), Entry{Path: path}); err != nil {
				t.Fatal(err)
			}
		}
		l.Refuse(Entry{}, 1)
		if took := time.Since(began); took != 0 || l.Lost() == 0 {
			t.Errorf("10,000 lines took %v, and %d are lost", took, l.Lost())
		}
		began = time.Now()
		if err := l.Close(); err == nil || time.Since(began) != closePatience {
			t.Errorf("the end came after %v: %v", time.Since(began), err)
		}
		close(d.hung)
	})
}

func TestRefusalsThatGoOnAreALineAMinute(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := &fakeDisk{}
		l := openOn(true, d)
		for range 10 * 60 {
			l.Refuse(Entry{Outcome: "RATE_LIMITED"}, 100)
			time.Sleep(time.Second)
		}
		synctest.Wait()
		if n := strings.Count(d.text(), "\n"); n < 10 || n > 12 {
			t.Errorf("ten minutes of refusals are %d lines", n)
		}
		time.Sleep(3 * refusalPeriod)
		synctest.Wait()
		if len(l.refusals.counted) != 0 {
			t.Error("a caller is remembered that asks no more")
		}
		_ = l.Close()
	})
}

func TestUsersAreCountedWithinABound(t *testing.T) {
	l, err := Open(filepath.Join(t.TempDir(), "audit.log"), Options{})
	if err != nil {
		t.Fatal(err)
	}
	for uid := range uint32(3 * maxRefused) {
		l.Refuse(Entry{UID: uid, Outcome: "CALLER_NOT_ALLOWED"}, 1)
	}
	if l.Lost() < 2*maxRefused || len(l.refusals.counted) > maxRefused {
		t.Errorf("%d are counted, %d lost", len(l.refusals.counted), l.Lost())
	}
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(l.name); err != nil {
		t.Error(err)
	}
}
