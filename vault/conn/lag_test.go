package conn

import (
	"errors"
	"net/http"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/secret-sidecar/secret-sidecar/vault"
)

const invalidToken = `{"errors":["2 errors occurred:\n\t* permission denied\n\t* invalid token\n\n"]}`

// lagging makes the node that answers reads know a token only some time after it was granted.
func (w *world) lagging(lag time.Duration) {
	var mu sync.Mutex
	var granted time.Time // guarded by mu
	w.breakWith(func(req *http.Request) (*http.Response, error) {
		mu.Lock()
		defer mu.Unlock()
		switch {
		case req.URL.Path == "/v1/"+loginPath:
			granted = time.Now()
		case strings.HasPrefix(req.URL.Path, "/v1/secret/") && time.Since(granted) < lag:
			return status(403, invalidToken, nil)(req)
		}
		return w.answer(req, nil)
	})
}

func TestANewTokenThatAStandbyDoesNotKnowYetCostsNoSecondLogin(t *testing.T) {
	inBubble(t, func(t *testing.T, w *world) {
		cfg := w.role(anHour)
		w.lagging(500 * time.Millisecond)
		c := w.open(cfg)
		for logins := 1; logins < 4; logins++ {
			var readers sync.WaitGroup
			for range 50 {
				readers.Go(func() {
					if _, err := c.Read(t.Context(), "secret/data/app", 0); err != nil {
						t.Errorf("after login %d: %v", logins, err)
					}
				})
			}
			readers.Wait()
			synctest.Wait()
			if n := w.count(loginCall); n != logins {
				t.Errorf("%d logins, want %d", n, logins)
			}
			time.Sleep(time.Minute)
			wantErr(t, c.RenewLogin(t.Context()), nil)
		}
	})
}

func TestATokenThatStaysUnknownIsAnOutageThatSaysSoAndCostsFewLogins(t *testing.T) {
	inBubble(t, func(t *testing.T, w *world) {
		cfg := w.role(anHour)
		w.lagging(time.Hour)
		c := w.open(cfg)
		wantErr(t, c.WaitReady(t.Context()), nil)
		const span = time.Minute
		for end := time.Now().Add(span); time.Now().Before(end); time.Sleep(100 * time.Millisecond) {
			_, err := c.Read(t.Context(), "secret/data/app", 0)
			wantErr(t, err, vault.ErrUnreachable)
			if !strings.Contains(remedy(err), "not known") {
				t.Fatalf("the remedy is %q: it should say that the tokens are not known", remedy(err))
			}
		}
		if n, most := w.count(loginCall), 1+3+int(span/(10*time.Second)); n < 4 || n > most {
			t.Errorf("%d logins in %v, want %d at most: 3 at once, then one in 10 s", n, span, most)
		}
		w.breakWith(nil)
		time.Sleep(10 * time.Second)
		mustRead(t, c)
	})
}

// aFew makes the first requests of a path fail. The others reach Vault.
func (w *world) aFew(path string, many int, way fault) {
	var mu sync.Mutex
	w.breakWith(func(req *http.Request) (*http.Response, error) {
		mu.Lock()
		defer mu.Unlock()
		if req.URL.Path == "/v1/"+path && many > 0 {
			many--
			return way(req)
		}
		return w.answer(req, nil)
	})
}

var behind = status(412, `{"errors":["required index state not present"]}`, nil)

func TestANodeThatLagsForAMomentFailsNobody(t *testing.T) {
	inBubble(t, func(t *testing.T, w *world) {
		cfg := w.role(anHour)
		w.aFew(loginPath, 2, behind)
		c := w.open(cfg)
		mustRead(t, c)
		w.aFew("secret/data/app", 2, behind)
		w.forget()
		mustRead(t, c)
		if n := w.count(readCall); n != 3 {
			t.Errorf("%d reads, want two that are answered 412 and a good one", n)
		}
		if s := c.Status(); s.State != StateReady {
			t.Errorf("the status is %+v", s)
		}
	})
}

func TestANodeThatLagsOnIsAnOutageWellBeforeTheTimeout(t *testing.T) {
	inBubble(t, func(t *testing.T, w *world) {
		c := w.open(w.role(anHour))
		mustRead(t, c)
		w.breakWith(behind)
		began := time.Now()
		_, err := c.Read(t.Context(), "secret/data/app", 0)
		wantErr(t, err, vault.ErrUnreachable)
		if took := time.Since(began); took < time.Second || took > 5*time.Second || !strings.Contains(remedy(err), "lags") {
			t.Errorf("after %v: %s", took, remedy(err))
		}
		w.breakWith(nil)
		readWithin10s(t, c)
	})
}

func TestAWaitForANodeThatLagsEndsWithTheCaller(t *testing.T) {
	inBubble(t, func(t *testing.T, w *world) {
		c := w.open(w.role(anHour))
		mustRead(t, c)
		w.breakWith(behind)
		ctx, cancel := contextOf(t, 300*time.Millisecond)
		defer cancel()
		began := time.Now()
		if _, err := c.Read(ctx, "secret/data/app", 0); err == nil || time.Since(began) > 300*time.Millisecond {
			t.Errorf("after %v: %v", time.Since(began), err)
		}
		if failure := c.Status().LastError; failure != nil && !errors.Is(failure, vault.ErrUnreachable) {
			t.Errorf("the last error is %v", failure)
		}
	})
}
