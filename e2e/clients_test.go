package e2e_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/secret-sidecar/secret-sidecar/client"
	"github.com/secret-sidecar/secret-sidecar/internal/vaulttest"
)

// The client libraries, on the real sidecar.

func (s *sandbox) openClient(options ...client.OpenOption) *client.Client {
	s.t.Helper()
	c, err := client.Open(s.t.Context(), append(options, client.Socket(s.socket()))...)
	if err != nil {
		s.t.Fatal(err)
	}
	s.t.Cleanup(func() { _ = c.Close() })
	return c
}

func TestNoCallOfTheGoClientFailsWhileTheSidecarIsAway(t *testing.T) {
	t.Parallel()
	s := newSandbox(t)
	v := vaulttest.Dev(t)
	value := s.newSecret()
	s.writeSecret(v, "secret/data/app", "key", value)
	file := s.config(s.newLogin(v, nil, readSecrets).connection("prod", v.Address))
	r := s.start("--config", file)
	c := s.openClient()

	ctx, cancel := context.WithCancel(t.Context())
	var calls atomic.Int64
	var loops sync.WaitGroup
	for range 10 {
		loops.Go(func() {
			for ctx.Err() == nil {
				got, err := c.Get(ctx, "secret/data/app/key", client.Timeout(time.Minute))
				if ctx.Err() == nil && (err != nil || got != value) {
					t.Errorf("a call failed: %v", err)
				}
				calls.Add(1)
			}
		})
	}
	for range 3 {
		before := calls.Load()
		eventually(t, "the loops go on", func() bool { return calls.Load() >= before+100 })
		r.kill()
		r.awaitExit()
		r = s.start("--config", file)
	}
	before := calls.Load()
	eventually(t, "the loops go on", func() bool { return calls.Load() >= before+100 })
	cancel()
	loops.Wait()
}

// A service that takes the new key alone refuses all that have the old one, at the same time.
func TestAThousandRefusedCallsCostOneReadOfVaultForEachSecond(t *testing.T) {
	t.Parallel()
	s := newSandbox(t)
	v := vaulttest.Dev(t)
	older, newer := s.newSecret(), s.newSecret()
	s.writeSecret(v, "secret/data/app", "key", older)
	g := s.newProxy(v)
	s.start("--config", s.config(s.newLogin(v, nil, readSecrets).connection("prod", g.address)))
	c := s.openClient()
	if _, err := c.Get(t.Context(), "secret/data/app/key"); err != nil {
		t.Fatal(err)
	}
	s.writeSecret(v, "secret/data/app", "key", newer)
	before, began := g.count("secret/data/app"), time.Now()
	var workers sync.WaitGroup
	for range 1000 {
		workers.Go(func() {
			call := func(_ context.Context, value string) (int, error) {
				if value != newer {
					return 0, client.ErrRefused
				}
				return 0, nil
			}
			_, err := client.Use(t.Context(), c, "secret/data/app/key", call,
				client.Timeout(patience))
			if err != nil {
				t.Errorf("a call that could be healed failed: %v", err)
			}
		})
	}
	workers.Wait()
	most := 2 + int(time.Since(began)/time.Second)
	if reads := g.count("secret/data/app") - before; reads > most {
		t.Errorf("%d reads of Vault, want %d at most", reads, most)
	}
}

// Each sample of the clients' pages runs against `secret-sidecar dev`, as the pages say; the one in
// Java is compiled.
func TestEverySampleOfTheClientsPagesRuns(t *testing.T) {
	t.Parallel()
	r := newReader(t)
	samples := clientSamples(t, filepath.Join(r.directory, "s"))
	var said strings.Builder
	stop := r.background(t, "secret-sidecar dev", &said)
	t.Cleanup(func() {
		if err := stop(); err != nil {
			t.Errorf("secret-sidecar dev: %v\n%s", err, said.String())
		}
	})
	r.shell(t, `until secret-sidecar health; do read -rt 0.1 <> <(:) || :; done >/dev/null 2>&1`)
	top := repository(t)
	proto := fmt.Sprintf("-I %s/proto %[1]s/proto/secretsidecar/v1/secret_service.proto", top)
	node := top + "/client/node"
	for _, sample := range []struct{ language, needs, run, want string }{
		{
			"go", "true",
			fmt.Sprintf("mv sample main.go && cd %s && go run %s/main.go", top, r.directory),
			"true\ntrue\n",
		},
		{
			"js", "test -d " + node + "/dist/esm",
			"mkdir -p node_modules/@secret-sidecar && " +
				"ln -sfn " + node + " node_modules/@secret-sidecar/client && " +
				"mv sample sample.mjs && node sample.mjs",
			"KEY_NOT_FOUND\ntrue 200\n",
		},
		{
			"mjs", "test -d " + node + "/dist/esm",
			"mkdir -p node_modules && ln -sfn " + node + "/dist/esm/gen gen && " +
				"ln -sfn " + node + "/node_modules/@connectrpc node_modules/@connectrpc && " +
				"mv sample connect.mjs && node connect.mjs",
			"11\n",
		},
		{
			"python", "/usr/bin/python3 -c 'import grpc_tools'",
			"/usr/bin/python3 -m grpc_tools.protoc --python_out=. --grpc_python_out=. " + proto +
				" && /usr/bin/python3 sample",
			"11\n",
		},
		{
			"java", "test -e /usr/share/java/grpc-netty.jar -a -x /usr/bin/grpc_java_plugin && " +
				"command -v javac protoc",
			"protoc --java_out=. --grpc-java_out=. " +
				"--plugin=protoc-gen-grpc-java=/usr/bin/grpc_java_plugin " + proto + " && " +
				"mv sample Sample.java && " +
				"javac -nowarn -cp '/usr/share/java/*' Sample.java secretsidecar/v1/*.java 2>&1 && " +
				"ls Sample.class",
			"Sample.class\n",
		},
	} {
		if samples[sample.language] == "" {
			t.Errorf("the pages have no sample in %s", sample.language)
		}
		if err := r.bash(t.Context(), sample.needs).Run(); err != nil {
			_, failed := errors.AsType[*exec.ExitError](err)
			if required := os.Getenv("SECRET_SIDECAR_REQUIRE_CLIENTS") == "1"; !failed || required {
				t.Fatalf("%q fails: %v", sample.needs, err)
			}
			t.Logf("not run, for %q fails: the sample in %s", sample.needs, sample.language)
			continue
		}
		r.write(t, "sample", samples[sample.language])
		if got := r.shell(t, sample.run); got != sample.want {
			t.Errorf("the sample in %s prints %q, want %q", sample.language, got, sample.want)
		}
	}
}

// clientSamples returns the samples of the clients' pages by language.
func clientSamples(t *testing.T, socket string) map[string]string {
	t.Helper()
	samples := map[string]string{}
	for _, page := range []string{"../docs/clients.md", "../docs/clients-grpc.md"} {
		text, err := os.ReadFile(page)
		if err != nil {
			t.Fatal(err)
		}
		for _, b := range codeBlocks(string(text)) {
			samples[b.language] = ownSocket(b.text, socket)
		}
	}
	return samples
}
