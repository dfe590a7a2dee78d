package e2e_test

import (
	"context"
	"fmt"
	"net/http"
	"net/http/httptest"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	secretsidecarv1 "github.com/secret-sidecar/secret-sidecar/gen/secretsidecar/v1"
	"github.com/secret-sidecar/secret-sidecar/internal/vaulttest"
)

// Logins whose answer is lost, and logins that many ask for at the same time.

// lostAnswers are ways in which a proxy carries a request to Vault and loses the answer.
var lostAnswers = []struct {
	name string
	say  http.HandlerFunc
}{
	{"the proxy says 502", text(http.StatusBadGateway, "<html>Bad Gateway</html>")},
	{"the connection ends", func(w http.ResponseWriter, _ *http.Request) { drop(w) }},
	{"no answer comes until the time-out", hang},
}

// loseLogins carries logins to Vault and gives another answer to the caller. Other requests get
// what failing returns, which may be nil.
func (g *proxy) loseLogins(say http.HandlerFunc, failing func(path string) http.HandlerFunc) {
	g.answerWith(func(path string) http.HandlerFunc {
		if path == loginPath {
			return func(w http.ResponseWriter, r *http.Request) {
				g.forward.ServeHTTP(httptest.NewRecorder(), r)
				say(w, r)
			}
		}
		if failing != nil {
			return failing(path)
		}
		return nil
	})
}

// pester does whatever may lead to a login, again and again, for a while.
func (r *sidecar) pester(total time.Duration) {
	t := r.sandbox.t
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), total)
	defer cancel()
	var group sync.WaitGroup
	every := func(pause time.Duration, do func()) {
		group.Go(func() { everyTick(ctx, pause, do) })
	}
	every(50*time.Millisecond, func() { _, _ = r.resolve("secret/data/app/key") })
	every(time.Second, func() { _ = r.renewLogin() })
	every(time.Second, func() { _, _ = r.testNamed("prod") })
	group.Wait()
}

// testNamed tests a connection of the configuration.
func (r *sidecar) testNamed(name string) (*secretsidecarv1.TestConnectionResponse, error) {
	return r.TestConnection(r.sandbox.t.Context(), &secretsidecarv1.TestConnectionRequest{
		Target: &secretsidecarv1.TestConnectionRequest_Connection{Connection: name},
	})
}

// lastsLong is the length of a fault whose damage adds up.
const lastsLong = 25 * time.Second

// maxRejected is how many rejected logins all causes together may spend on a role. Vault locks it
// after five.
const maxRejected = 3

func TestAProxyThatLosesTheAnswersToWrongLoginsLocksNoRole(t *testing.T) {
	t.Parallel()
	for _, lost := range lostAnswers {
		t.Run(lost.name, func(t *testing.T) {
			t.Parallel()
			v := vaulttest.RealPrivate(t)
			s := newSandbox(t)
			g, l := s.newProxy(v), s.defaultLogin(v)
			g.loseLogins(lost.say, nil)
			r := s.startUnready("--config",
				s.config(l.connection("prod", g.address, "timeout: 2s",
					"secret_id: "+s.newSecret())))
			r.pester(lastsLong)
			requireBetween(t, fmt.Sprintf("wrong logins in %v", lastsLong), g.count(loginPath), 1,
				maxRejected)
			if status, _ := v.Do(t, http.MethodPost, loginPath,
				map[string]any{"role_id": l.roleID,
					"secret_id": l.secretID}); status != http.StatusOK {
				t.Errorf("the right secret_id is answered %d: the role is locked", status)
			}
		})
	}
}

func TestALoginWhoseAnswerIsLostIsFollowedByNoneUntilVaultAnswers(t *testing.T) {
	t.Parallel()
	for _, lost := range lostAnswers {
		t.Run(lost.name, func(t *testing.T) {
			t.Parallel()
			v := vaulttest.Dev(t)
			s := newSandbox(t)
			g, l := s.newProxy(v), s.defaultLogin(v)
			g.loseLogins(lost.say, func(string) http.HandlerFunc { return lost.say })
			r := s.startUnready("--config",
				s.config(l.connection("prod", g.address, "timeout: 2s")))
			const lasts = 20 * time.Second
			r.pester(lasts)
			requireBetween(t, fmt.Sprintf("logins in an outage of %v", lasts), g.count(loginPath),
				0, 1)
			s.writeSecret(v, "secret/data/app", "key", s.newSecret())
			g.open()
			requireHealed(t, direct(v, g.address, "secret/data/app"),
				fresh(r, "", "secret/data/app/key"))
		})
	}
}

func TestLostAnswersToGoodLoginsSpendNothingOfARoleThatVaultHasAccepted(t *testing.T) {
	t.Parallel()
	s := newSetup(t, vaulttest.Dev(t), "timeout: 2s")
	g, l := s.newProxy(s.vault), s.defaultLogin(s.vault)
	g.loseLogins(lostAnswers[0].say, nil)
	for range 2 * maxRejected {
		_ = s.renewLogin()
	}
	s.vault.RevokeRoleTokens(t, l.role)
	g.open()
	requireHealed(t, direct(s.vault, g.address, "secret/data/app"),
		fresh(s.sidecar, "", "secret/data/app/key"))
	requireHealth(t, s.sidecar, "connection/prod", serving)
}

// outcomeIsKept is how long the outcome of a login that somebody asked for counts for others too. A
// busy machine may take longer to ask for all of them.
const outcomeIsKept = 10 * time.Second

// crowd is how many ask for the same thing at the same time.
const crowd = 200

// askTogether lets a crowd ask at once while the first login waits, and returns how many logins
// that took. Nobody may fail.
func (s *setup) askTogether(what string, ask func() error) int {
	s.t.Helper()
	before, release := s.proxy.count(loginPath), s.proxy.holdPaths(loginPath)
	var group sync.WaitGroup
	var answered atomic.Int64
	for range crowd {
		group.Go(func() {
			defer answered.Add(1)
			if err := ask(); err != nil {
				s.t.Errorf("%s: %v", what, err)
			}
		})
	}
	defer group.Wait()
	defer release()
	eventually(s.t, "a login is under way, or nobody needs one", func() bool {
		return s.proxy.count(loginPath) > before || answered.Load() == crowd
	})
	release()
	group.Wait()
	s.proxy.open()
	return s.proxy.count(loginPath) - before
}

func TestACrowdThatAsksForANewLoginSharesOne(t *testing.T) {
	t.Parallel()
	a := newSetup(t, vaulttest.Dev(t))
	if logins := a.askTogether("a new login", a.sidecar.renewLogin); logins != 1 {
		t.Errorf("%d who asked for a new login at the same time cost %d logins, want 1", crowd,
			logins)
	}
	since := time.Now()
	again := a.askTogether("a new login again", a.sidecar.renewLogin)
	requireBetween(t, "logins for those who asked again soon after", again, 0,
		int(time.Since(since)/outcomeIsKept))
}

func TestACrowdThatTestsAConnectionSharesOneLogin(t *testing.T) {
	t.Parallel()
	a := newSetup(t, vaulttest.Dev(t))
	logins := a.askTogether("a test", func() error {
		report, err := a.sidecar.testNamed("prod")
		if err == nil && !report.GetOk() {
			err = fmt.Errorf("the report is %v", report)
		}
		return err
	})
	if logins != 1 {
		t.Errorf("%d tests at the same time cost %d logins, want 1", crowd, logins)
	}
}

func TestATestOfAConnectionSoonAfterAnotherCostsNoLogin(t *testing.T) {
	t.Parallel()
	a := newSetup(t, vaulttest.Dev(t))
	if report, err := a.sidecar.testNamed("prod"); err != nil || !report.GetOk() {
		t.Fatalf("the first test: %v, %v", report, err)
	}
	before, since := a.proxy.count(loginPath), time.Now()
	for range 20 {
		if report, err := a.sidecar.testNamed("prod"); err != nil || !report.GetOk() {
			t.Errorf("a test: %v, %v", report, err)
		}
	}
	logins := a.proxy.count(loginPath) - before
	requireBetween(t, "logins for 20 tests soon after one that succeeded", logins, 0,
		int(time.Since(since)/outcomeIsKept))
}

func TestAFreshReadDoesNotWaitForOneThatHangs(t *testing.T) {
	t.Parallel()
	s := newSetup(t, vaulttest.Dev(t), timeoutOf(patience*10))
	s.writeSecret(s.vault, "secret/data/app", "key", s.newSecret())
	release := s.proxy.hold()
	defer release()
	hung := make(chan error, 1)
	// ends when it is answered
	go func() { hung <- fresh(s.sidecar, "", "secret/data/app/key")(t.Context()) }()
	eventually(t, "a read hangs", func() bool { return s.proxy.count("secret/data/app") == 1 })
	s.proxy.open() // the one that is held stays held
	newer := s.newSecret()
	s.writeSecret(s.vault, "secret/data/app", "key", newer)
	ctx, cancel := context.WithTimeout(t.Context(), patience) // a tenth of the time-out
	defer cancel()
	began := time.Now()
	answer, err := s.Resolve(ctx, &secretsidecarv1.ResolveRequest{Path: "secret/data/app/key",
		MaxAge: readVaultNow})
	if err != nil || answer.GetValue() != newer || answer.GetSource() != fromVault {
		t.Errorf("a fresh read behind one that hangs: %v, %v after %v", answer.GetSource(), err,
			time.Since(began))
	}
	if err := <-hung; err != nil { // what is newer than what it waits for answers it too
		t.Errorf("the caller of the read that hangs: %v", err)
	}
	t.Logf("answered within %v", time.Since(began))
}

func TestNoMoreThanTwoReadsOfASecretAreUnderWay(t *testing.T) {
	t.Parallel()
	s := newSetup(t, vaulttest.Dev(t), timeoutOf(patience*10))
	s.writeSecret(s.vault, "secret/data/app", "key", s.newSecret())
	release := s.proxy.hold()
	var group sync.WaitGroup
	defer group.Wait()
	defer release()
	for i := range 50 {
		if i == 1 {
			eventually(t, "the first read hangs",
				func() bool { return s.proxy.count("secret/data/app") == 1 })
		}
		group.Go(func() {
			if err := fresh(s.sidecar, "", "secret/data/app/key")(t.Context()); err != nil {
				t.Errorf("after all were released: %v", err)
			}
		})
	}
	eventually(t, "a second read is under way",
		func() bool { return s.proxy.count("secret/data/app") >= 2 })
	tick := time.NewTicker(askWhileHealing)
	defer tick.Stop()
	for range 20 { // a third one would be here by now
		<-tick.C
	}
	requireBetween(t, "reads under way", s.proxy.count("secret/data/app"), 2, 2)
}

// A role's two credentials are in two files, which change one after the other.
func TestARoleIDFileThatIsReplacedOnDiskIsTakenUp(t *testing.T) {
	t.Parallel()
	for name, order := range map[string][2]string{
		"the role_id first":   {"role_id", "secret_id"},
		"the secret_id first": {"secret_id", "role_id"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := newSandbox(t)
			v := vaulttest.Dev(t)
			g, older, newer := s.newProxy(v), s.defaultLogin(v), s.defaultLogin(v)
			contents := map[string]string{"role_id": newer.roleID, "secret_id": newer.secretID}
			value := s.newSecret()
			s.writeSecret(v, "secret/data/app", "key", value)
			r := s.start("--config",
				s.config(older.connection("prod", g.address, timeoutOf(noOutage),
					"role_id_file: "+s.write("role_id", older.roleID),
					"secret_id_file: "+s.write("secret_id",
						older.secretID))))
			stopLoad := r.underLoad("prod", "secret/data/app/key", value)
			defer stopLoad()
			before := g.count(loginPath)
			s.write(order[0], contents[order[0]]+"\n")
			eventually(t, "the first of the two is tried",
				func() bool { return g.count(loginPath) > before })
			s.write(order[1], contents[order[1]]+"\n")
			eventually(t, "there is a token of the new role",
				func() bool { return len(v.RoleTokens(t, newer.role)) == 1 })
			eventually(t, "the old role's token is revoked",
				func() bool { return len(v.RoleTokens(t, older.role)) == 0 })
			stopLoad()
			requireBetween(t, "logins", g.count(loginPath)-before, 1, 1+maxRejected)
		})
	}
}
