package e2e_test

import (
	"slices"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/protobuf/types/known/durationpb"

	secretsidecarv1 "github.com/secret-sidecar/secret-sidecar/gen/secretsidecar/v1"
	"github.com/secret-sidecar/secret-sidecar/internal/vaulttest"
)

// attackSetup is a sidecar under attack. Whatever it is sent, it goes on answering others, and asks
// Vault for nothing but secrets below secret/data/.
type attackSetup struct {
	*sidecar
	proxy *proxy
	value string
}

func newAttackSetup(t *testing.T) *attackSetup {
	t.Helper()
	s := newSandbox(t)
	v := vaulttest.Dev(t)
	g := s.newProxy(v)
	d := &attackSetup{proxy: g, value: s.newSecret()}
	s.writeSecret(v, "secret/data/app", "key", d.value)
	project := strings.Replace(s.defaultLogin(v).connection("project", g.address),
		"scope: platform",
		"scope: project\n    project_ids: [p1]", 1)
	d.sidecar = s.start("--config",
		s.config(s.defaultLogin(v).connection("prod", g.address), project))
	return d
}

// requireUnharmed fails the test unless others are still answered, and Vault was asked for nothing
// else.
func (d *attackSetup) requireUnharmed() {
	d.sandbox.t.Helper()
	d.answer(&secretsidecarv1.ResolveRequest{Connection: "prod", Path: "secret/data/app/key",
		MaxAge: readVaultNow}, d.value, fromVault)
	for _, one := range d.proxy.seen() {
		isOurs := one.path == loginPath || one.path == "sys/internal/ui/mounts" ||
			strings.HasPrefix(one.path, "sys/internal/ui/mounts/") ||
			strings.HasPrefix(one.path, "secret/data/") ||
			strings.HasPrefix(one.path, "auth/token/")
		if !isOurs || slices.Contains(strings.Split(one.path, "/"), "..") {
			d.sandbox.t.Errorf("%s %q reached Vault", one.method, one.path)
		}
	}
}

// in is the same setup for a subtest.
func (d *attackSetup) in(t *testing.T) *attackSetup {
	return &attackSetup{sidecar: d.sidecar.in(t), proxy: d.proxy, value: d.value}
}

var (
	notFound     = failure{codes.NotFound, "SECRET_NOT_FOUND"}
	noConnection = failure{codes.NotFound, "CONNECTION_NOT_FOUND"}
)

func TestAttacksByReferenceReachNothing(t *testing.T) {
	t.Parallel()
	d := newAttackSetup(t)
	for _, attack := range []struct {
		name, path, key string
		want            failure
	}{
		{"traversal", "secret/data/../../sys/mounts/k", "", invalidPath},
		{"traversal at the start", "../sys/data/mounts/k", "", invalidPath},
		{"traversal at the end", "secret/data/app/..", "", invalidPath},
		{"traversal before data", "secret/../data/app/k", "", invalidPath},
		{"a dot segment", "secret/data/./app/k", "", invalidPath},
		{"a leading slash", "/secret/data/app/k", "", invalidPath},
		{"a trailing slash", "secret/data/app/k/", "", invalidPath},
		{"a double slash", "secret//data/app/k", "", invalidPath},
		{"a double slash inside", "secret/data//app/k", "", invalidPath},
		{"a scheme", "http://secret/data/app/k", "", invalidPath},
		{"nothing", "", "", invalidPath},
		{"a slash", "/", "", invalidPath},
		{"slashes", "////", "", invalidPath},
		{"too few segments", "secret/data/app", "", invalidPath},
		{"no data", "secret/metadata/app/k", "", invalidPath},
		{"data first", "data/secret/app/k", "", invalidPath},
		{"data as the last of the secret", "secret/app/data/k", "", invalidPath},
		{"a key of 2000 bytes", "secret/data/app", strings.Repeat("k", 2000), invalidPath},
		{"DATA", "secret/DATA/app/k", "", invalidPath},
		{"data with a space", "secret/data /app/k", "", invalidPath},
		{"sys", "sys/data/mounts/k", "", invalidPath},
		{"auth", "auth/data/token/k", "", invalidPath},
		{"identity", "identity/data/entity/k", "", invalidPath},
		{"cubbyhole", "cubbyhole/data/a/k", "", invalidPath},
		{"sys in a deeper mount", "sys/raw/data/core/k", "", invalidPath},
		{"a NUL", "secret/data/app\x00/k", "", invalidPath},
		{"a line feed", "secret/data/app\n/k", "", invalidPath},
		{"a header by CR LF", "secret/data/app\r\nX-Vault-Token: root/k", "", invalidPath},
		{"a tab", "secret/data/a\tb/k", "", invalidPath},
		{"an escape", "secret/data/\x1b[31m/k", "", invalidPath},
		{"a delete", "secret/data/\x7f/k", "", invalidPath},
		{"a C1 control", "secret/data/\u0085/k", "", invalidPath},
		{"1025 bytes", "secret/data/" + strings.Repeat("a", 1011) + "/k", "", invalidPath},
		{"a megabyte less", "secret/data/" + strings.Repeat("a", 900_000) + "/k", "", invalidPath},
		{"500 levels", "secret/data" + strings.Repeat("/a", 501), "", notFound},
		{"a key of two dots", "secret/data/app", "..", notFoundKey},
		{"a key with slashes", "secret/data/app", "../../x", notFoundKey},
		{"an empty key beside a whole path", "secret/data/x/app", "", notFound},
		{"encoded dots", "secret/data/%2e%2e/%2e%2e/sys/k", "", notFound},
		{"encoded dots in capitals", "secret/data/%2E%2E/sys/k", "", notFound},
		{"an encoded slash", "secret/data/..%2f..%2fsys/k", "", notFound},
		{"twice encoded", "secret/data/%252e%252e/k", "", notFound},
		{"an overlong dot", "secret/data/%c0%ae%c0%ae/k", "", notFound},
		{"dots of full width", "secret/data/．．/k", "", notFound},
		{"a division slash", "secret/data/..∕..∕sys/k", "", notFound},
		{"a backslash", `secret/data/..\..\sys/k`, "", notFound},
		{"three dots", "secret/data/.../k", "", notFound},
		{"a query", "secret/data/app?version=1&list=true/k", "", notFound},
		{"a fragment", "secret/data/app#x/k", "", notFound},
		{"a semicolon", "secret/data/..;/k", "", notFound},
		{"a space before dots", "secret/data/ ../k", "", notFound},
		{"an at sign", "secret/data/@evil.example/k", "", notFound},
		{"a percent at the end", "secret/data/app%/k", "", notFound},
		{"a wildcard", "secret/data/*/k", "", notFound},
		{"a template", "secret/data/{{identity.entity.id}}/k", "", notFound},
		{"a right-to-left override", "secret/data/\u202egnp.exe/k", "", invalidPathOrNotFound},
		{"a joiner", "secret/data/a\u200db/k", "", invalidPathOrNotFound},
	} {
		t.Run(attack.name, func(t *testing.T) {
			d := d.in(t)
			_, err := d.Resolve(t.Context(),
				&secretsidecarv1.ResolveRequest{Connection: "prod", Path: attack.path,
					Key: attack.key})
			failed := failureOf(err)
			switch {
			case failed == nil:
				t.Errorf("%q was answered", attack.path)
			case attack.want == invalidPathOrNotFound &&
				(*failed == invalidPath || *failed == notFound):
			case *failed != attack.want:
				t.Errorf("%q: %v, want %v", attack.path, err, attack.want)
			}
		})
	}
	d.requireUnharmed()
}

var (
	notFoundKey = failure{codes.NotFound, "KEY_NOT_FOUND"}
	// invalidPathOrNotFound is for what Unicode may call printable or not.
	invalidPathOrNotFound = failure{codes.OK, "either"}
)

func TestAttacksByRequestReachNothing(t *testing.T) {
	t.Parallel()
	d := newAttackSetup(t)
	const path = "secret/data/app/key"
	long := strings.Repeat("n", 500_000)
	for _, attack := range []struct {
		name    string
		request *secretsidecarv1.ResolveRequest
		want    failure
	}{
		{"another connection's name in capitals",
			&secretsidecarv1.ResolveRequest{Connection: "PROD", Path: path}, noConnection},
		{"a connection with a space", &secretsidecarv1.ResolveRequest{Connection: "prod ", Path: path},
			noConnection},
		{"a connection of dots", &secretsidecarv1.ResolveRequest{Connection: "../prod", Path: path},
			noConnection},
		{"every connection", &secretsidecarv1.ResolveRequest{Connection: "*", Path: path}, noConnection},
		{"a connection of 500 kB", &secretsidecarv1.ResolveRequest{Connection: long, Path: path},
			noConnection},
		{"a connection with a line feed",
			&secretsidecarv1.ResolveRequest{Connection: "prod\n", Path: path}, noConnection},
		{"no connection of two", &secretsidecarv1.ResolveRequest{Path: path},
			failure{codes.InvalidArgument, "CONNECTION_REQUIRED"}},
		{"no project", &secretsidecarv1.ResolveRequest{Connection: "project", Path: path},
			failure{codes.PermissionDenied, "PROJECT_REQUIRED"}},
		{"another project", &secretsidecarv1.ResolveRequest{Connection: "project", Path: path,
			ProjectId: "p2"}, failure{codes.PermissionDenied, "PROJECT_NOT_ALLOWED"}},
		{"a project in capitals", &secretsidecarv1.ResolveRequest{Connection: "project", Path: path,
			ProjectId: "P1"}, failure{codes.PermissionDenied, "PROJECT_NOT_ALLOWED"}},
		{"a project with a space", &secretsidecarv1.ResolveRequest{Connection: "project", Path: path,
			ProjectId: "p1 "}, failure{codes.PermissionDenied, "PROJECT_NOT_ALLOWED"}},
		{"two projects", &secretsidecarv1.ResolveRequest{Connection: "project", Path: path,
			ProjectId: "p1,p2"}, failure{codes.PermissionDenied, "PROJECT_NOT_ALLOWED"}},
		{"a project of 500 kB", &secretsidecarv1.ResolveRequest{Connection: "project", Path: path,
			ProjectId: long}, failure{codes.PermissionDenied, "PROJECT_NOT_ALLOWED"}},
		{"a negative max_age", &secretsidecarv1.ResolveRequest{Connection: "prod", Path: path,
			MaxAge: durationpb.New(-time.Second)}, invalidRequest},
		{"a negative max_stale", &secretsidecarv1.ResolveRequest{Connection: "prod", Path: path,
			MaxStale: durationpb.New(-1)}, invalidRequest},
		{"a version that never was", &secretsidecarv1.ResolveRequest{Connection: "prod", Path: path,
			Version: 1<<32 - 1}, notFound},
	} {
		t.Run(attack.name, func(t *testing.T) {
			d := d.in(t)
			_, err := d.Resolve(t.Context(), attack.request)
			failed := requireFailure(t, d.sandbox, err, attack.want)
			if len(failed.Message()) > 1000 || strings.ContainsAny(failed.Message(), "\n\r\x00") {
				t.Errorf("the message repeats what it was sent: %d bytes", len(failed.Message()))
			}
		})
	}
	d.requireUnharmed()
}

func TestAttacksByHeaderChangeNothing(t *testing.T) {
	t.Parallel()
	d := newAttackSetup(t)
	for name, header := range map[string][]string{
		"a token for Vault":        {"x-vault-token", "root"},
		"a namespace for Vault":    {"x-vault-namespace", "admin"},
		"a wrapping for Vault":     {"x-vault-wrap-ttl", "60"},
		"another user":             {"x-forwarded-user", "root", "uid", "0"},
		"an authorization":         {"authorization", "Bearer root"},
		"a host":                   {"host", "evil.example"},
		"a trace that is none":     {"traceparent", "00-zz-zz-zz"},
		"a trace of 7 kB":          {"traceparent", strings.Repeat("0", 7000)},
		"many baggage entries":     {"baggage", strings.Repeat("a=b,", 1000)},
		"a binary header":          {"x-bin", "\x00\xff"},
		"a header many times over": slices.Repeat([]string{"x-a", "b"}, 100),
		"a message's own encoding": {"grpc-accept-encoding", "gzip,deflate,zstd,../x"},
	} {
		t.Run(name, func(t *testing.T) {
			d := d.in(t)
			ctx := metadata.AppendToOutgoingContext(t.Context(), header...)
			answer, err := d.Resolve(ctx, &secretsidecarv1.ResolveRequest{Connection: "prod",
				Path: "secret/data/app/key", MaxAge: readVaultNow})
			if err != nil || answer.GetValue() != d.value {
				t.Errorf("%v, %v", answer, err)
			}
		})
	}
	for _, one := range d.proxy.seen() {
		for name := range one.header {
			if slices.Contains([]string{"X-Vault-Wrap-Ttl", "X-Vault-Namespace", "Authorization",
				"X-Forwarded-User", "Baggage", "X-A"}, name) {
				t.Errorf("the caller's header %s has reached Vault", name)
			}
		}
	}
	d.requireUnharmed()
	t.Run("an authority of another host", func(t *testing.T) {
		d := d.in(t)
		_, _ = d.Resolve(t.Context(), &secretsidecarv1.ResolveRequest{Connection: "prod",
			Path: "secret/data/app/key"}, grpc.CallAuthority("evil.example:443"))
		d.requireUnharmed()
	})
}
