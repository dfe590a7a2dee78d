package e2e_test

import (
	"fmt"
	"os"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc/codes"

	secretsidecarv1 "github.com/secret-sidecar/secret-sidecar/gen/secretsidecar/v1"
	"github.com/secret-sidecar/secret-sidecar/internal/vaulttest"
)

// ourRule is a rule of the user who runs the tests.
func ourRule(lines string) string {
	return fmt.Sprintf("callers:\n  - {uid: %d, %s}\n", os.Getuid(), lines)
}

func TestPathsKeepProjectsApartBeforeVaultIsAsked(t *testing.T) {
	t.Parallel()
	const paths = `paths: ["secret/data/{project_id}/**"]`
	for name, where := range map[string]struct {
		line, rules string
		refusal     failure
	}{
		"in a connection": {paths, "", failure{codes.PermissionDenied, "PROJECT_NOT_ALLOWED"}},
		"in a rule":       {"", ourRule(paths), callerNotAllowed},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			v := vaulttest.Dev(t)
			s := newUnstartedSetup(t, v, nil, readSecrets)
			values := map[string]string{}
			for _, project := range []string{"p1", "p2"} {
				values[project] = s.newSecret()
				s.writeSecret(v, "secret/data/"+project+"/app", "key", values[project])
			}
			text := s.configText(s.login.connection("prod", s.proxy.address, where.line)) + where.rules
			s.sidecar = s.start("--config", s.write("config.yaml", text))

			own := []*secretsidecarv1.ResolveRequest{}
			for project, value := range values {
				request := &secretsidecarv1.ResolveRequest{
					Path: "secret/data/" + project + "/app/key", ProjectId: project}
				s.answer(request, value, fromVault) // so that the cache could answer what follows
				own = append(own, request)
			}
			before := len(s.proxy.seen())
			batch := &secretsidecarv1.BatchResolveRequest{Requests: own}
			for _, project := range []string{"", "p2", "P1", "p1/..", "../p1", "p1/app", ".", "..", "%70%31",
				"p1%2f..%2fp2", "*", "p1 "} {
				for _, path := range []string{
					"secret/data/p1/app/key", "secret/data/p1/absent/key", "secret/data/P1/app/key",
					"secret/data/%70%31/app/key", "secret/data/p2%2f..%2fp1/app/key",
					`secret/data/p2\..\p1/app/key`, "secret/data/.../p1/key", "secret/data/*/app/key",
				} {
					request := &secretsidecarv1.ResolveRequest{Path: path, ProjectId: project}
					if strings.HasPrefix(path, "secret/data/"+project+"/") && project == "P1" {
						continue // its own
					}
					_, err := s.Resolve(t.Context(), request)
					requireFailure(t, s, err, where.refusal)
					batch.Requests = append(batch.Requests, request)
				}
			}
			answer, err := s.BatchResolve(t.Context(), batch)
			if err != nil {
				t.Fatal(err)
			}
			for i, result := range answer.GetResults() {
				refused := result.GetError().GetReason() == where.refusal.reason
				if isOwn := i < len(own); isOwn && result.GetSecret() == nil || !isOwn && !refused {
					t.Errorf("item %d, %v: %v", i, batch.GetRequests()[i], result)
				}
			}
			if asked := len(s.proxy.seen()) - before; asked != 0 {
				t.Errorf("Vault was asked %d times", asked)
			}
		})
	}
}

func TestARuleOfAProjectReachesNothingOfOthers(t *testing.T) {
	t.Parallel()
	v := vaulttest.Dev(t)
	s := newUnstartedSetup(t, v, nil, readSecrets)
	project := func(name, id string) string {
		return strings.Replace(s.login.connection(name, s.proxy.address), "scope: platform",
			"scope: project\n    project_ids: ["+id+"]", 1)
	}
	const rule = "projects: [p1], methods: [Resolve, TestConnection, Invalidate, ListConnections]"
	s.sidecar = s.start("--config", s.write("config.yaml",
		s.configText(project("mine", "p1"), project("theirs", "p2"))+ourRule(rule)))
	s.answer(&secretsidecarv1.ResolveRequest{
		Connection: "mine", Path: "secret/data/app/key", ProjectId: "p1"}, s.secret, fromVault)
	eventually(t, "both have logged in", func() bool { return s.proxy.count(loginPath) == 2 })

	before := len(s.proxy.seen())
	for _, name := range []string{"theirs", "absent"} {
		_, err := s.Resolve(t.Context(),
			&secretsidecarv1.ResolveRequest{Connection: name, Path: "secret/data/app/key", ProjectId: "p1"})
		requireFailure(t, s, err, noConnection)
		_, err = s.TestConnection(t.Context(), &secretsidecarv1.TestConnectionRequest{
			Target: &secretsidecarv1.TestConnectionRequest_Connection{Connection: name},
			Path:   "secret/data/app/key"})
		requireFailure(t, s, err, noConnection)
		_, err = s.Invalidate(t.Context(),
			&secretsidecarv1.InvalidateRequest{Connection: name, RenewLogin: true})
		requireFailure(t, s, err, noConnection)
	}
	listed, err := s.ListConnections(t.Context(), &secretsidecarv1.ListConnectionsRequest{})
	if err != nil || len(listed.GetConnections()) != 1 ||
		listed.GetConnections()[0].GetName() != "mine" {
		t.Errorf("listed: %v, %v", listed, err)
	}
	if asked := len(s.proxy.seen()) - before; asked != 0 {
		t.Errorf("Vault was asked %d times", asked)
	}
}

func TestALoopOfNewLoginsCostsVaultFew(t *testing.T) {
	t.Parallel()
	s := newSetup(t, vaulttest.RealPrivate(t))
	s.value("secret/data/app/key", s.secret, fromVault)
	began := time.Now()
	for i := range 300 {
		request := &secretsidecarv1.InvalidateRequest{RenewLogin: true}
		if i%2 == 0 {
			request.Connection, request.Path = "prod", "secret/data/app/key"
		}
		if _, err := s.Invalidate(t.Context(), request); err != nil {
			t.Fatal(err)
		}
		if _, err := s.TestConnection(t.Context(), &secretsidecarv1.TestConnectionRequest{
			Target: &secretsidecarv1.TestConnectionRequest_Connection{Connection: "prod"}}); err != nil {
			t.Fatal(err)
		}
	}
	took := time.Since(began)
	// The first login, and one of each kind in each 10 s.
	most := 1 + 2*(1+int(took/(10*time.Second)))
	if n := arrived(t, s.vault, "update", loginPath); n > most {
		t.Errorf("%d logins in %v, want at most %d", n, took, most)
	}
	lines := strings.Count(s.sidecar.log.String(), "a caller asks for a new login")
	if lines == 0 || lines > 20*(1+int(took/time.Minute)) {
		t.Errorf("the log tells of it %d times", lines)
	}
}

func TestALoopOnADeniedSecretCostsVaultFewReads(t *testing.T) {
	t.Parallel()
	s := newSetup(t, vaulttest.RealPrivate(t))
	began := time.Now()
	for range 1000 {
		_, err := s.resolve("private/data/payroll/key")
		requireFailure(t, s, err, denied)
	}
	took := time.Since(began)
	// The first denial costs a fresh login, and is read again with its token.
	most := 2 + int(took/time.Second)
	if n := arrived(t, s.vault, "read", "private/data/payroll"); n > most {
		t.Errorf("%d reads in %v, want at most %d", n, took, most)
	}
	if n := arrived(t, s.vault, "update", loginPath); n > 2+int(took/time.Minute) {
		t.Errorf("%d logins", n)
	}
}
