package e2e_test

import (
	"cmp"
	"io"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc/codes"

	secretsidecarv1 "github.com/secret-sidecar/secret-sidecar/gen/secretsidecar/v1"
	"github.com/secret-sidecar/secret-sidecar/internal/vaulttest"
)

// What fails alone stays alone: one kind of request, one mount or one path fails, and the rest goes
// on.

// waysToFail are what a part of Vault that is out of order answers.
var waysToFail = []struct {
	name   string
	answer http.HandlerFunc
}{
	{"429", vaultSays(http.StatusTooManyRequests, "request path: rate limit quota exceeded")},
	{"500", vaultSays(http.StatusInternalServerError, "internal error")},
	{"a page that says 503", text(http.StatusServiceUnavailable, "no healthy upstream")},
	{"no answer until the time-out", hang},
	{"the end of the connection", func(w http.ResponseWriter, _ *http.Request) { drop(w) }},
}

// hangsFor is the timeout where one thing hangs until the time-out and nothing else may.
const hangsFor = 6 * time.Second

// failing makes the requests whose path begins with one of these prefixes fail.
func (g *proxy) failing(answer http.HandlerFunc, prefixes ...string) {
	g.answerWith(func(path string) http.HandlerFunc {
		for _, prefix := range prefixes {
			if strings.HasPrefix(path, prefix) {
				return answer
			}
		}
		return nil
	})
}

func TestALoginThatFailsStopsNoReadWhileTheTokenLives(t *testing.T) {
	t.Parallel()
	for _, way := range waysToFail {
		t.Run(way.name, func(t *testing.T) {
			t.Parallel()
			a := newSetup(t, vaulttest.Dev(t), timeoutOf(hangsFor))
			paths := a.newSecrets(a.vault, "secret/data/cold", 60)
			a.proxy.failing(way.answer, loginPath)
			if a.sidecar.renewLogin() == nil {
				t.Error("a new login succeeded, though logins fail")
			}
			a.sidecar.readEach(paths)
			requireHealth(t, a.sidecar, "connection/prod", serving)
			a.proxy.open()
			eventually(t, "a new login succeeds once they work again",
				func() bool { return a.sidecar.renewLogin() == nil })
		})
	}
}

func TestRenewalsThatFailStopNoReadWhileTheTokenLives(t *testing.T) {
	t.Parallel()
	// From two thirds on the sidecar tries to renew it, or to log in.
	const ends, margin = "12s", 1500 * time.Millisecond
	for i, way := range waysToFail {
		for kind, role := range map[string]map[string]any{
			"renewable":     {"token_ttl": ends, "token_max_ttl": "1h"},
			"not renewable": {"token_ttl": ends, "token_max_ttl": ends, "token_type": "batch"},
		} {
			if kind == "not renewable" && i > 1 {
				continue // TestALoginThatFailsStopsNoReadWhileTheTokenLives has them all
			}
			t.Run(kind+", "+way.name, func(t *testing.T) {
				t.Parallel()
				a := newSetupOf(t, vaulttest.Dev(t), role, readSecrets, timeoutOf(hangsFor))
				paths := a.newSecrets(a.vault, "secret/data/cold", 20)
				a.proxy.failing(way.answer, loginPath, renewPath)
				end := a.sidecar.status("prod").GetTokenExpiresAt().AsTime()
				began, failed, answered := time.Now(), 0, 0
				for i := 0; time.Until(end) > 0; i++ {
					err := fresh(a.sidecar, "", paths[i%len(paths)]+"/key")(t.Context())
					switch left := time.Until(end); {
					case err == nil:
						answered++
					case left > margin:
						failed++
						if failed == 1 {
							t.Errorf("after %v, with %v of the token's life left: %v",
								time.Since(began), left, err)
						}
					}
					<-time.After(askWhileHealing)
				}
				t.Logf("%d reads were answered while the token lived, %d failed; %d renewals and "+
					"%d logins were tried",
					answered, failed, a.proxy.count(renewPath), a.proxy.count(loginPath)-1)
				requireBetween(t, "renewals and logins that failed",
					a.proxy.count(renewPath)+a.proxy.count(loginPath)-1, 1, 20)
				a.proxy.open()
				requireHealed(t, direct(a.vault, a.proxy.address, paths[0]),
					fresh(a.sidecar, "", paths[0]+"/key"))
			})
		}
	}
}

// quota limits a path of a real Vault to one request an hour. It returns the function that lifts
// the limit.
func (s *sandbox) quota(v *vaulttest.Vault, path string) (lift func()) {
	s.t.Helper()
	at := "sys/quotas/rate-limit/" + vaulttest.Unique("e2e")
	s.asRoot(v, http.MethodPost, at, map[string]any{"path": path, "rate": 1, "interval": "1h"})
	return func() {
		s.t.Helper()
		s.asRoot(v, http.MethodDelete, at, nil)
	}
}

func TestAQuotaOnLoginsAloneStopsNoRead(t *testing.T) {
	t.Parallel()
	v := vaulttest.RealPrivate(t)
	a := newSetup(t, v, timeoutOf(noOutage))
	paths := a.newSecrets(v, "secret/data/cold", 60)
	lift := a.quota(v, loginPath)
	_ = a.sidecar.renewLogin() // the one that the quota lets through
	eventually(t, "the quota refuses a login", func() bool {
		status, _ := v.Do(t, http.MethodPost, loginPath,
			map[string]any{"role_id": a.login.roleID, "secret_id": a.login.secretID})
		return status == http.StatusTooManyRequests
	})
	a.sidecar.readEach(paths[:30])
	_ = a.sidecar.renewLogin() // refused, unless an earlier one is new enough to stand for it
	a.sidecar.readEach(paths[30:])
	lift()
}

func TestAQuotaOnOneMountStopsNoReadOfAnother(t *testing.T) {
	t.Parallel()
	v := vaulttest.RealPrivate(t)
	v.Mount(t, "batch", "kv", "2")
	a := newSetupOf(t, v, nil, readSecrets+` path "batch/*" { capabilities = ["read"] }`,
		timeoutOf(noOutage))
	var limited []string
	eventually(t, "the new mount takes secrets", func() bool {
		answer, err := v.Try(http.MethodPost, "batch/data/ready",
			map[string]any{"data": map[string]any{"key": a.newSecret()}})
		return err == nil && answer.Status == http.StatusOK
	})
	limited = a.newSecrets(v, "batch/data/limited", 3)
	paths := a.newSecrets(v, "secret/data/cold", 40)
	lift := a.quota(v, "batch/")
	batch := a.sidecar.startPoll(3, askWhileHealing, limited...)
	eventually(t, "the mount is limited",
		func() bool { return batch.answers()["Unavailable VAULT_RATE_LIMITED"] > 0 })
	a.sidecar.readEach(paths)
	lift()
	requireHealed(t, direct(v, a.proxy.address, limited[0]),
		fresh(a.sidecar, "", limited[0]+"/key"))
	t.Logf("the limited mount: %v", batch.stop())
}

// slowly is an answer that comes late.
func slowly(late time.Duration, answer http.HandlerFunc) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		_, _ = io.Copy(io.Discard, r.Body)
		timer := time.NewTimer(late)
		defer timer.Stop()
		select {
		case <-timer.C:
			answer(w, r)
		case <-r.Context().Done():
		}
	}
}

func TestPathsThatFailCostTheOthersOfTheirMountNothing(t *testing.T) {
	t.Parallel()
	const reads = 400
	for _, bad := range []struct {
		name    string
		paths   int
		answer  http.HandlerFunc
		mayFail int           // of the reads of the others
		hangs   time.Duration // the timeout, where the paths hang until then
	}{
		{"one path answers 500 slowly", 1, slowly(3*time.Second, waysToFail[1].answer), reads / 100, 0},
		{"ten paths answer 500 slowly", 10, slowly(3*time.Second, waysToFail[1].answer), reads / 100, 0},
		{"ten paths answer 500 at once", 10, waysToFail[1].answer, reads / 100, 0},
		{"ten paths answer 429 at once", 10, waysToFail[0].answer, reads / 100, 0},
		{"ten paths answer a page slowly", 10, slowly(3*time.Second, waysToFail[2].answer),
			reads / 100, 0},
		// A busy machine may let others wait for the time-out too.
		{"one path hangs until the time-out", 1, hang, reads / 10, 3 * time.Second},
		{"ten paths hang until the time-out", 10, hang, reads / 10, 3 * time.Second},
	} {
		t.Run(bad.name, func(t *testing.T) {
			t.Parallel()
			a := newSetup(t, vaulttest.Dev(t), timeoutOf(cmp.Or(bad.hangs, noOutage)))
			good := a.newSecrets(a.vault, "secret/data/good", 50)
			evil := a.newSecrets(a.vault, "secret/data/evil", bad.paths)
			a.proxy.failing(bad.answer, "secret/data/evil")
			failing := a.sidecar.startPoll(bad.paths, askWhileHealing, evil...)
			eventually(t, "the bad paths have failed", func() bool {
				return failing.total() >= bad.paths
			})
			// the mount, from the bad paths' first failures
			requireHealed(t, nil, fresh(a.sidecar, "", good[0]+"/key"))
			healthy := a.sidecar.startPoll(4, askWhileHealing, good...)
			healthy.await(t, reads)
			healthy.requireFresh(t, "reads of the good paths", bad.mayFail)

			// An outage on top, and then only the bad paths are bad again.
			a.proxy.cut()
			outage := a.sidecar.startPoll(1, askWhileHealing, good[:10]...)
			outage.await(t, 40)
			outage.stop()
			a.proxy.failing(bad.answer, "secret/data/evil")
			// A path that hangs may have its turn first.
			requireHealedWithin(t, healsWithin+bad.hangs, direct(a.vault, a.proxy.address, good[0]),
				fresh(a.sidecar, "", good[0]+"/key"), fresh(a.sidecar, "", good[1]+"/key"))
			t.Logf("reads of the bad paths: %v", failing.stop())
		})
	}
}

func TestAQuestionAboutMountsThatFailsStopsNothing(t *testing.T) {
	t.Parallel()
	for _, way := range waysToFail {
		t.Run(way.name, func(t *testing.T) {
			t.Parallel()
			a := newSetup(t, vaulttest.Dev(t), timeoutOf(hangsFor), "cache: {negative_ttl: 0s}")
			good := a.newSecrets(a.vault, "secret/data/good", 50)
			gone := a.newSecrets(a.vault, "secret/data/gone", 2)
			for _, path := range gone { // so that there are copies
				if err := fresh(a.sidecar, "", path+"/key")(t.Context()); err != nil {
					t.Fatal(err)
				}
			}
			a.proxy.failing(way.answer, "sys/internal/ui/mounts", "sys/mounts")
			missing := a.sidecar.startPoll(2, askWhileHealing, "secret/data/missing",
				"secret/data/missing-too")
			healthy := a.sidecar.startPoll(2, askWhileHealing, good...)
			a.sandbox.asRoot(a.vault, http.MethodDelete, "secret/data/gone-0", nil)
			a.sandbox.asRoot(a.vault, http.MethodDelete, "secret/metadata/gone-1", nil)
			for i, want := range []string{"VERSION_DELETED", "SECRET_NOT_FOUND"} {
				for range 3 {
					answer, err := a.sidecar.Resolve(t.Context(),
						&secretsidecarv1.ResolveRequest{Path: gone[i] + "/key",
							MaxAge: readVaultNow})
					if err == nil {
						t.Errorf("a secret that is gone is answered from %v, want %s",
							answer.GetSource(), want)
						continue
					}
					if failed := *failureOf(err); failed != (failure{codes.NotFound, want}) {
						t.Errorf("a secret that is gone: %v, want %s", failed, want)
					}
				}
			}
			healthy.await(t, 200)
			healthy.requireFresh(t, "reads of the good secrets", 0)
			for answer, times := range missing.stop() {
				if answer != "NotFound SECRET_NOT_FOUND" {
					t.Errorf("missing secrets were answered %q %d times", answer, times)
				}
			}
		})
	}
}

func TestAWholeOutageStaysCheap(t *testing.T) {
	t.Parallel()
	const secrets, lasts = 20, 20 * time.Second
	ways := slices.Clone(waysToFail)
	ways[2].name, ways[2].answer = "503 of a sealed Vault", vaultSays(http.StatusServiceUnavailable,
		"Vault is sealed")
	ways = slices.Delete(ways, 3, 4) // what hangs costs less still
	for _, way := range ways {
		t.Run(way.name, func(t *testing.T) {
			t.Parallel()
			a := newSetup(t, vaulttest.Dev(t))
			paths := a.newSecrets(a.vault, "secret/data/cold", secrets)
			before, began := len(a.proxy.seen()), time.Now()
			a.proxy.answerAll(way.answer)
			worker := a.sidecar.startPoll(2, askWhileHealing, paths...)
			end := time.NewTimer(lasts)
			defer end.Stop()
			<-end.C
			probes := len(a.proxy.seen()) - before
			t.Logf("%d requests reached Vault in %v, of %v", probes, lasts, worker.answers())
			// Intervals of 0.2, 0.4, 0.8, 1.6, 3.2 and then of 5 s. They may be drawn, down to the
			// half of that.
			intervals := 5 + int(time.Since(began)/(5*time.Second))
			requireBetween(t, "requests that reached Vault", probes, 1, secrets+2*intervals)
			a.proxy.open()
			requireHealed(t, direct(a.vault, a.proxy.address, paths[0]),
				fresh(a.sidecar, "", paths[0]+"/key"))
		})
	}
}
