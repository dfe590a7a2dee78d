package fleet

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"math/big"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/secret-sidecar/secret-sidecar/internal/redact"
	"github.com/secret-sidecar/secret-sidecar/internal/redistest"
	"github.com/secret-sidecar/secret-sidecar/internal/vaulttest"
)

// requireFleet checks that two sidecars hear each other.
func requireFleet(t *testing.T, config Config) {
	t.Helper()
	one, two := join(t, config).connected(t), join(t, config).connected(t)
	id := tell(t, one.Fleet, secretA)
	eventually(t, "the other one drops", func() bool { return two.has(secretA) })
	got, err := one.Wait(t.Context(), id, func(Progress) {})
	if err != nil || got != (Progress{Living: 2, Acknowledged: 2}) {
		t.Errorf("got %+v, %v", got, err)
	}
}

// documentedUser is the command of docs/fleet.md that makes the sidecars' user.
func documentedUser(t testing.TB) []any {
	t.Helper()
	text, err := os.ReadFile("../../docs/fleet.md")
	if err != nil {
		t.Fatal(err)
	}
	command := regexp.MustCompile(`(?m)^ACL SETUSER .*$`).FindString(string(text))
	var words []any
	for word := range strings.FieldsSeq(command) {
		words = append(words, strings.Replace(word, "PASSWORD", "hush", 1))
	}
	return words
}

func passwordFile(t testing.TB, password string) string {
	t.Helper()
	file := filepath.Join(t.TempDir(), "password")
	if err := os.WriteFile(file, []byte(password+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	return file
}

func TestTheDocumentedUserMayDoWhatIsNeededAndNoMore(t *testing.T) {
	s := redistest.Real(t)
	admin := s.Client(t)
	if err := admin.Do(t.Context(), documentedUser(t)...).Err(); err != nil {
		t.Fatal(err)
	}
	config := Config{URL: redact.New("redis://secret-sidecar@" + s.Address), PasswordFile: passwordFile(t, "hush")}
	requireFleet(t, config)
	user := open(t, config).client
	for _, command := range [][]any{
		{"GET", "other"}, {"SET", "other", "x"}, {"XADD", "other", "*", "a", "b"}, {"KEYS", "*"}, {"FLUSHALL"},
		{"CONFIG", "GET", "*"}, {"XTRIM", DefaultStream, "MAXLEN", "0"},
	} {
		err := user.Do(t.Context(), command...).Err()
		if err == nil || !strings.HasPrefix(err.Error(), "NOPERM") {
			t.Errorf("%v: %v, want NOPERM", command, err)
		}
	}
}

func TestAChangedPasswordIsTakenUpWithoutARestart(t *testing.T) {
	s := redistest.Real(t)
	admin := s.Client(t)
	file := passwordFile(t, "old")
	setPassword := func(password string) {
		t.Helper()
		err := admin.Do(t.Context(), "ACL", "SETUSER", "sidecar", "reset", "on", ">"+password, "~*", "+@all").Err()
		if err != nil {
			t.Fatal(err)
		}
	}
	setPassword("old")
	m := join(t, Config{URL: redact.New("redis://sidecar@" + s.Address), PasswordFile: file}).connected(t)
	setPassword("new")
	if err := admin.Do(t.Context(), "CLIENT", "KILL", "USER", "sidecar").Err(); err != nil {
		t.Fatal(err)
	}
	eventually(t, "it notices", func() bool { return !m.Stats().Connected })
	_, err := m.Tell(t.Context(), secretA)
	if err == nil || !strings.Contains(err.Error(), "it refuses the user or the password") || strings.Contains(err.Error(), "old") {
		t.Errorf("got %v", err)
	}
	if err := os.WriteFile(file, []byte("new"), 0o600); err != nil {
		t.Fatal(err)
	}
	m.connected(t)
}

func TestTheFleetSpeaksTLSAndTrustsItsAuthorityAlone(t *testing.T) {
	address, err := vaulttest.FreeAddress()
	if err != nil {
		t.Fatal(err)
	}
	_, port, _ := net.SplitHostPort(address)
	certificate, key := selfSigned(t)
	redistest.Real(t, "--tls-port", port, "--tls-cert-file", certificate, "--tls-key-file", key,
		"--tls-ca-cert-file", certificate, "--tls-auth-clients", "no")
	url := redact.New("rediss://" + address)
	requireFleet(t, Config{URL: url, CAFile: certificate})
	if _, err := open(t, Config{URL: url}).Tell(t.Context(), secretA); err == nil {
		t.Error("a certificate that nobody vouches for is trusted")
	}
}

func selfSigned(t testing.TB) (certificateFile, keyFile string) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		IsCA: true, BasicConstraintsValid: true,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	if err != nil {
		t.Fatal(err)
	}
	keyDER, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	directory := t.TempDir()
	certificateFile, keyFile = filepath.Join(directory, "certificate"), filepath.Join(directory, "key")
	for file, block := range map[string]*pem.Block{
		certificateFile: {Type: "CERTIFICATE", Bytes: der}, keyFile: {Type: "PRIVATE KEY", Bytes: keyDER},
	} {
		if err := os.WriteFile(file, pem.EncodeToMemory(block), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return certificateFile, keyFile
}

func TestTheFleetFindsItsStreamInACluster(t *testing.T) {
	directory := t.TempDir()
	s := redistest.Real(t, "--cluster-enabled", "yes", "--cluster-config-file", filepath.Join(directory, "nodes"))
	admin := s.Client(t)
	if err := admin.ClusterAddSlotsRange(t.Context(), 0, 16383).Err(); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the cluster is up", func() bool {
		info, err := admin.ClusterInfo(context.Background()).Result()
		return err == nil && strings.Contains(info, "cluster_state:ok")
	})
	user := append(documentedUser(t), "+xlen", "+cluster|slots", "+cluster|shards", "+command")
	if err := admin.Do(t.Context(), user...).Err(); err != nil {
		t.Fatal(err)
	}
	requireFleet(t, Config{
		URL:          redact.New("redis://secret-sidecar@" + s.Address + "?addr=" + s.Address),
		PasswordFile: passwordFile(t, "hush"),
	})
}

// A replica that is promoted may lack the last entries, and nobody can tell: all is dropped.
func TestAFailoverBySentinelMakesEverybodyDropEverything(t *testing.T) {
	primary := redistest.Real(t)
	host, port, _ := net.SplitHostPort(primary.Address)
	replica := redistest.Real(t, "--replicaof", host+" "+port)
	sentinel := startSentinel(t, host, port)
	m := join(t, Config{URL: redact.New("redis://" + sentinel + "?master_name=fleet")}).connected(t)
	tell(t, m.Fleet, secretA)
	inSync := func() bool {
		info, err := replica.Client(t).Info(context.Background(), "replication").Result()
		return err == nil && strings.Contains(info, "master_link_status:up")
	}
	eventually(t, "the replica is in sync", inSync)
	promote(t, sentinel)
	eventually(t, "everything is dropped", func() bool { _, all := m.drops(); return all == 2 })
	m.connected(t)
	what := Invalidation{Connection: "after"}
	eventually(t, "it can be told again", func() bool {
		_, err := m.Tell(context.Background(), what)
		return err == nil
	})
	if role, err := replica.Client(t).Do(t.Context(), "ROLE").Slice(); err != nil || fmt.Sprint(role[0]) != "master" {
		t.Errorf("the replica is %v, %v", role, err)
	}
}

// startSentinel watches the primary, called "fleet", until the test ends.
func startSentinel(t *testing.T, host, port string) (address string) {
	t.Helper()
	address, err := vaulttest.FreeAddress()
	if err != nil {
		t.Fatal(err)
	}
	_, own, _ := net.SplitHostPort(address)
	file := filepath.Join(t.TempDir(), "sentinel.conf")
	text := fmt.Sprintf("bind 127.0.0.1\nport %s\nsentinel monitor fleet %s %s 1\n", own, host, port)
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	process := exec.Command("redis-server", file, "--sentinel")
	process.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := process.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = process.Process.Kill(); _ = process.Wait() })
	return address
}

// promote lets the sentinel promote the replica, as soon as it knows it.
func promote(t *testing.T, sentinel string) {
	t.Helper()
	client := redis.NewSentinelClient(&redis.Options{Addr: sentinel, Protocol: 2, DisableIdentity: true})
	t.Cleanup(func() { _ = client.Close() })
	eventually(t, "the sentinel promotes the replica", func() bool {
		return client.Failover(context.Background(), "fleet").Err() == nil
	})
}
