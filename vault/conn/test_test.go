package conn

import (
	"context"
	"net/http"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/secret-sidecar/secret-sidecar/internal/redact"
	"github.com/secret-sidecar/secret-sidecar/vault"
	"github.com/secret-sidecar/secret-sidecar/vault/login"
)

func statuses(r Report) string {
	var parts []string
	for _, check := range r.Checks {
		parts = append(parts, check.Name+" "+check.Status.String())
	}
	return strings.Join(parts, ", ")
}

func TestStagedReports(t *testing.T) {
	ref := &vault.Reference{Path: "secret/data/app", Key: "key"}
	for name, test := range map[string]struct {
		prepare func(w *world, cfg *Config)
		ref     *vault.Reference
		want    string
		remedy  string // of the check that is not passed
	}{
		"all is well": {
			prepare: func(w *world, _ *Config) {
				w.do("PUT", "sys/policies/acl/app", `{"policy":"path \"secret/*\" {capabilities=[\"read\"]} path \"sys/mounts\" {capabilities=[\"read\"]}"}`)
			},
			ref: ref, want: "reach passed, login passed, mounts passed, path passed",
		},
		"no path given":            {want: "reach passed, login passed, mounts warning, path skipped", remedy: `path "sys/mounts"`},
		"mounts may not be listed": {ref: ref, want: "reach passed, login passed, mounts warning, path passed", remedy: `path "sys/mounts"`},
		"no KV version 2 mount": {
			prepare: func(w *world, _ *Config) {
				w.do("PUT", "sys/policies/acl/app", `{"policy":"path \"sys/mounts\" {capabilities=[\"read\"]}"}`)
				w.do("DELETE", "sys/mounts/secret", "")
				w.do("POST", "sys/mounts/kv1", `{"type":"kv","options":{"version":"1"}}`)
			},
			want: "reach passed, login passed, mounts warning, path skipped", remedy: "secrets enable",
		},
		"sealed": {
			prepare: func(w *world, _ *Config) { w.dev.SetSealed(true) },
			ref:     ref, want: "reach failed, login skipped, mounts skipped, path skipped", remedy: "unseal",
		},
		"wrong secret_id": {
			prepare: func(_ *world, cfg *Config) { cfg.SecretID.Value = redact.New("wrong") },
			ref:     ref, want: "reach passed, login failed, mounts skipped, path skipped", remedy: "secret_id",
		},
		"no secret_id": {
			prepare: func(_ *world, cfg *Config) { cfg.SecretID = login.Credential{} },
			ref:     ref, want: "reach passed, login failed, mounts skipped, path skipped", remedy: "wants a secret_id",
		},
		"unreadable secret_id file": {
			prepare: func(_ *world, cfg *Config) { cfg.SecretID = login.Credential{File: "/nowhere/secret_id"} },
			ref:     ref, want: "reach passed, login failed, mounts skipped, path skipped", remedy: "/nowhere/secret_id",
		},
		"wrong auth mount": {
			prepare: func(_ *world, cfg *Config) { cfg.AuthMount = "elsewhere" },
			ref:     ref, want: "reach passed, login failed, mounts skipped, path skipped", remedy: "auth_mount",
		},
		"denied path": {
			ref:  &vault.Reference{Path: "elsewhere/data/app", Key: "key"},
			want: "reach passed, login passed, mounts warning, path failed",
		},
		"missing secret": {
			ref:  &vault.Reference{Path: "secret/data/missing", Key: "key"},
			want: "reach passed, login passed, mounts warning, path failed",
		},
		"missing key": {
			ref:  &vault.Reference{Path: "secret/data/app", Key: "other"},
			want: "reach passed, login passed, mounts warning, path failed",
		},
		"limited use tokens": {
			prepare: func(w *world, _ *Config) { w.role(`{"token_policies":"app","token_num_uses":3}`) },
			ref:     ref, want: "reach passed, login failed, mounts skipped, path skipped", remedy: "token_num_uses=0",
		},
	} {
		t.Run(name, func(t *testing.T) {
			inBubble(t, func(t *testing.T, w *world) {
				cfg := w.role(anHour)
				if test.prepare != nil {
					test.prepare(w, &cfg)
				}
				report, err := TestConfig(t.Context(), cfg, test.ref)
				if err != nil {
					t.Fatal(err)
				}
				if got := statuses(report); got != test.want {
					t.Errorf("report is %s\nwant      %s", got, test.want)
				}
				checkRemedies(t, report, test.remedy)
				if granted := w.count(loginCall); report.Checks[1].Status == CheckPassed && w.count(revokeCall) != granted {
					t.Errorf("the test's token was not revoked: %v", w.requests)
				}
			})
		})
	}
}

// checkRemedies wants a remedy at every failure, and the wanted text in one.
func checkRemedies(t *testing.T, report Report, want string) {
	t.Helper()
	var all []string
	for _, check := range report.Checks {
		if check.Message == "" || (check.Status == CheckFailed) && check.Remedy == "" {
			t.Errorf("%s says nothing: %+v", check.Name, check)
		}
		all = append(all, check.Remedy)
	}
	if !strings.Contains(strings.Join(all, "\n"), want) {
		t.Errorf("no remedy says %q: %q", want, all)
	}
}

func TestReportDescribesVaultAndTheToken(t *testing.T) {
	inBubble(t, func(t *testing.T, w *world) {
		w.do("POST", "sys/mounts/kv1", `{"type":"kv","options":{"version":"1"}}`)
		w.do("POST", "sys/mounts/team/kv", `{"type":"kv","options":{"version":"2"}}`)
		cfg := w.role(anHour)
		w.do("PUT", "sys/policies/acl/app", `{"policy":"path \"sys/mounts\" {capabilities=[\"read\"]}"}`)
		report, err := TestConfig(t.Context(), cfg, nil)
		if err != nil {
			t.Fatal(err)
		}
		if report.VaultVersion == "" || report.TokenTTL != time.Hour || strings.Join(report.Policies, ",") != "app,default" {
			t.Errorf("report: %+v", report)
		}
		want := []vault.Mount{{Path: "kv1/", Type: "kv", KVVersion: 1}, {Path: "secret/", Type: "kv", KVVersion: 2}, {Path: "team/kv/", Type: "kv", KVVersion: 2}}
		if len(report.Mounts) != 3 || report.Mounts[0] != want[0] || report.Mounts[1] != want[1] || report.Mounts[2] != want[2] {
			t.Errorf("mounts: %+v", report.Mounts)
		}
	})
}

func TestTestRevokesItsTokenWhenTheCallerGoesAway(t *testing.T) {
	inBubble(t, func(t *testing.T, w *world) {
		cfg := w.role(anHour)
		w.setLatency(time.Second)
		ctx, cancel := context.WithTimeout(t.Context(), 1500*time.Millisecond) // in the middle of the login
		defer cancel()
		report, err := TestConfig(ctx, cfg, nil)
		if err != nil || report.OK() {
			t.Errorf("report %+v, %v", report, err)
		}
		if w.count(loginCall) != 1 || w.count(revokeCall) != 1 {
			t.Errorf("requests: %v", w.requests)
		}
	})
}

func TestTestOfARunningClientKeepsItsToken(t *testing.T) {
	inBubble(t, func(t *testing.T, w *world) {
		c := w.open(w.role(anHour))
		mustRead(t, c)
		before := c.login.State().Token
		if report := c.Test(t.Context(), &vault.Reference{Path: "secret/data/app", Key: "key"}); !report.OK() {
			t.Errorf("report: %+v", report)
		}
		if c.login.State().Token != before {
			t.Error("the client's token was replaced")
		}
		mustRead(t, c)
		time.Sleep(time.Minute)
		if w.count(loginCall) != 2 || w.count(revokeCall) != 1 {
			t.Errorf("requests: %v", w.requests)
		}
	})
}

func TestTestAsksVaultEvenInAnOutage(t *testing.T) {
	inBubble(t, func(t *testing.T, w *world) {
		c := w.open(w.role(anHour))
		mustRead(t, c)
		w.breakWith(status(http.StatusTooManyRequests, "", http.Header{"Retry-After": {"60"}}))
		_, err := c.Read(t.Context(), "secret/data/app", 0)
		wantErr(t, err, vault.ErrRateLimited)
		if report := c.Test(t.Context(), nil); report.OK() || report.Checks[0].Status != CheckFailed {
			t.Errorf("report: %+v", report)
		}
		w.breakWith(nil)
		if report := c.Test(t.Context(), nil); !report.OK() {
			t.Errorf("report: %+v", report)
		}
	})
}

func TestTestTellsOfNewerCredentialsThatAreRejected(t *testing.T) {
	inBubble(t, func(t *testing.T, w *world) {
		r := newRotation(t, w)
		r.rotate("wrong")
		report := r.c.Test(t.Context(), nil)
		if check := report.Checks[1]; check.Status != CheckWarning || !strings.Contains(check.Message, "newer credentials") {
			t.Errorf("login check: %+v", check)
		}
	})
}

func TestATestEndsWithTheClientAndLeavesNoTokenBehind(t *testing.T) {
	const clientAndTest = 2
	for slow, tokens := range map[string]int{
		"sys/health": 1, "auth/approle/login": 1, "sys/mounts": clientAndTest, "secret/data/app": clientAndTest,
	} {
		inBubble(t, func(t *testing.T, w *world) {
			c := w.open(w.role(`{"token_policies":"app"}`))
			if err := c.WaitReady(t.Context()); err != nil {
				t.Fatal(err)
			}
			w.breakWith(func(req *http.Request) (*http.Response, error) {
				if strings.HasSuffix(req.URL.Path, slow) {
					<-req.Context().Done()
					return nil, req.Context().Err()
				}
				return w.answer(req, nil)
			})
			reports := make(chan Report, 1)
			go func() { reports <- c.Test(t.Context(), &vault.Reference{Path: "secret/data/app", Key: "key"}) }()
			synctest.Wait()
			began := time.Now()
			if err := c.Close(t.Context()); err != nil {
				t.Errorf("close: %v", err)
			}
			if took := time.Since(began); took > 0 {
				t.Errorf("Close took %v for a test that was at %s", took, slow)
			}
			if n := w.count(revokeCall); n != tokens {
				t.Errorf("%d tokens were revoked when Close returned, with a test that was at %s, want %d", n, slow, tokens)
			}
			if report := <-reports; report.OK() {
				t.Errorf("a test that was cut off at %s: %s", slow, statuses(report))
			}
			if report := c.Test(t.Context(), nil); report.OK() {
				t.Errorf("a test of a closed client: %s", statuses(report))
			}
		})
	}
}
