package e2e_test

import (
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/secret-sidecar/secret-sidecar/internal/vaulttest"
)

// refused runs `serve`, which has to fail with an exit code and say each of the words.
func (s *sandbox) refused(code int, config string, words ...string) {
	s.t.Helper()
	done := s.run("serve", "--config", config)
	if done.code != code {
		s.t.Errorf("serve ended with %d, want %d\n%s", done.code, code, done.stderr)
	}
	for _, word := range words {
		if !strings.Contains(done.stderr, word) {
			s.t.Errorf("serve does not say %q:\n%s", word, done.stderr)
		}
	}
}

func TestMistakesInTheConfigurationAreNamedWithTheirPlace(t *testing.T) {
	t.Parallel()
	s := newSandbox(t)
	const login = "    address: http://127.0.0.1:1\n    role_id: some-role\n"
	secretID := s.newSecret()
	head := fmt.Sprintf("socket: {path: %s}\n", s.socket())
	for name, test := range map[string]struct {
		text  string
		words []string
	}{
		"a typo": {
			head + "connections:\n  - name: prod\n    scope: platform\n    secret_id: " + secretID +
				"\n    adress: http://127.0.0.1:1\n    role_id: r\n",
			[]string{"6:5", "adress"},
		},
		"a duplicate name": {
			head + "connections:\n  - name: prod\n    scope: platform\n    secret_id: " + secretID +
				"\n" +
				login +
				"  - name: prod\n    scope: platform\n    secret_id: " + secretID + "\n" + login,
			[]string{"8:11", "another connection has this name"},
		},
		"a secret_id that is a list": {
			head + "connections:\n  - name: prod\n    scope: platform\n    secret_id: [" +
				secretID +
				"]\n" + login,
			[]string{"5:", "secret_id"},
		},
		"a tab after a secret": {
			head + "connections:\n  - name: prod\n    scope: platform\n    secret_id: \"" +
				secretID +
				"\n" + login,
			[]string{"5:"},
		},
		"a project connection without projects": {
			head + "connections:\n  - name: prod\n    scope: project\n    secret_id: " + secretID +
				"\n" +
				login,
			[]string{"project_ids"},
		},
		"a bad socket mode": {
			fmt.Sprintf("socket: {path: %s, mode: \"0999\"}\n", s.socket()) +
				"connections:\n  - name: prod\n    scope: platform\n    secret_id: " + secretID +
				"\n" + login,
			[]string{"1:", "mode"},
		},
	} {
		t.Run(name, func(t *testing.T) {
			s := s.in(t)
			file := s.write("bad.yaml", test.text)
			s.refused(2, file, test.words...)
			if done := s.run("config", "check", "--config", file); done.code != 2 {
				t.Errorf("config check ended with %d, want 2\n%s", done.code, done.stderr)
			}
		})
	}
	t.Run("a file that is not there",
		func(t *testing.T) { s.in(t).refused(2, s.path("absent.yaml"), "absent.yaml") })
	t.Run("an unknown command and an unknown flag", func(t *testing.T) {
		s := s.in(t)
		for _, args := range [][]string{{"sreve"}, {"serve", "--confg", "x"}, {"resolve"},
			{"serve", "--log-level", "loud"}} {
			if done := s.run(args...); done.code != 2 || done.stderr == "" {
				t.Errorf("%v ended with %d and says %q, want 2", args, done.code, done.stderr)
			}
		}
	})
}

func TestAnUnreadableSecretIDFileIsReported(t *testing.T) {
	t.Parallel()
	s := newSandbox(t)
	v := vaulttest.Dev(t)
	l := s.defaultLogin(v)
	config := s.config(l.connection("prod", v.Address, "secret_id_file: "+s.path("absent")))
	done := s.run("config", "check", "--config", config)
	if done.code != 2 || !strings.Contains(done.stderr, config+":7:") ||
		!strings.Contains(done.stderr, "secret_id_file") {
		t.Errorf("config check ended with %d and says %s", done.code, done.stderr)
	}
	r := s.startUnready("--config", config)
	if _, err := r.resolve("secret/data/app/key"); err == nil {
		t.Error("resolve works without a secret_id")
	}
	eventually(t, "the log names the file", func() bool { return r.logs(s.path("absent")) })
	s.write("absent", l.newSecretID()+"\n")
	r.awaitHealth("") // a file that appears is picked up
}

func TestTheSocketIsOpenedSafely(t *testing.T) {
	t.Parallel()
	v := vaulttest.Dev(t)
	prepare := func(t *testing.T) (*sandbox, string) {
		s := newSandbox(t)
		return s, s.config(s.defaultLogin(v).connection("prod", v.Address))
	}

	t.Run("a path over 107 bytes is refused", func(t *testing.T) {
		s, config := prepare(t)
		done := s.run("serve", "--config", config, "--socket",
			filepath.Join(s.dir, strings.Repeat("x", 107)))
		if done.code != 2 || !strings.Contains(done.stderr, "107") {
			t.Errorf("serve ended with %d and says %s", done.code, done.stderr)
		}
	})

	t.Run("a live sidecar keeps its socket", func(t *testing.T) {
		s, config := prepare(t)
		first := s.start("--config", config)
		s.refused(1, config, s.socket())
		requireHealth(t, first, "", serving)
		first.stop()
		if _, err := os.Lstat(s.socket()); !os.IsNotExist(err) {
			t.Errorf("the socket is still there after the end: %v", err)
		}
	})

	t.Run("the socket of a crashed sidecar is taken over", func(t *testing.T) {
		s, config := prepare(t)
		s.start("--config", config).kill()
		if _, err := os.Lstat(s.socket()); err != nil {
			t.Fatalf("a crash leaves the socket: %v", err)
		}
		s.start("--config", config)
	})

	t.Run("of many that want the socket of a crashed one, one gets it", func(t *testing.T) {
		s, config := prepare(t)
		s.start("--config", config).kill()
		const rivals = 6
		exits := make(chan int, rivals)
		var processes []*exec.Cmd
		for range rivals {
			log := &output{}
			rival := exec.Command(binary, "serve", "--config", config)
			rival.Env, rival.Stderr = s.environ(), log
			s.recordLive("log of a rival", log.String)
			if err := rival.Start(); err != nil {
				t.Fatal(err)
			}
			processes = append(processes, rival)
			go func() { // ends with the process, which the test sees to
				_ = rival.Wait()
				exits <- rival.ProcessState.ExitCode()
			}()
		}
		for range rivals - 1 {
			if code := <-exits; code != 1 {
				t.Errorf("a rival that lost ended with %d, want 1", code)
			}
		}
		eventually(t, "the winner serves", func() bool { return s.run("health").code == 0 })
		for _, process := range processes {
			_ = process.Process.Signal(syscall.SIGTERM) // fails for those that have ended
		}
		if code := <-exits; code != 0 {
			t.Errorf("the winner ended with %d", code)
		}
	})

	t.Run("a regular file is refused and left alone", func(t *testing.T) {
		s, config := prepare(t)
		if err := os.Mkdir(filepath.Dir(s.socket()), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(s.socket(), []byte("precious"), 0o600); err != nil {
			t.Fatal(err)
		}
		s.refused(2, config, s.socket())
		if content, err := os.ReadFile(s.socket()); string(content) != "precious" {
			t.Errorf("the file holds %q, %v", content, err)
		}
	})

	t.Run("a directory, and a symbolic link to a file, are left alone", func(t *testing.T) {
		s, config := prepare(t)
		if err := os.MkdirAll(s.socket(), 0o700); err != nil {
			t.Fatal(err)
		}
		s.refused(2, config)
		if info, err := os.Lstat(s.socket()); err != nil || !info.IsDir() {
			t.Errorf("the directory is gone: %v", err)
		}
		target := s.write("target", "precious")
		if err := os.Remove(s.socket()); err != nil {
			t.Fatal(err)
		}
		if err := os.Symlink(target, s.socket()); err != nil {
			t.Fatal(err)
		}
		s.refused(2, config)
		if content, err := os.ReadFile(s.socket()); string(content) != "precious" {
			t.Errorf("the link leads to %q, %v", content, err)
		}
	})

	for _, test := range []struct {
		name, socket    string
		mode, directory fs.FileMode
		group           int
	}{
		{"mode 0600 and a private directory by default", "", 0o600, 0o700, os.Getgid()},
		{"mode alone is enough", `, mode: "0666"`, 0o666, 0o700, os.Getgid()},
		{"a group opens the directory to it", `, mode: "0660", group: "2"`, 0o660, 0o750, 2},
	} {
		t.Run(test.name, func(t *testing.T) {
			if test.group != os.Getgid() && os.Geteuid() != 0 {
				t.Skip("only root can give a socket to another group")
			}
			s := newSandbox(t)
			text := s.configText(s.defaultLogin(v).connection("prod", v.Address))
			text = strings.Replace(text, s.socket(), s.socket()+test.socket, 1)
			s.start("--config", s.write("config.yaml", text))
			requireMode(t, s.socket(), test.mode, test.group)
			requireMode(t, filepath.Dir(s.socket()), test.directory, test.group)
		})
	}

	t.Run("an existing directory is left as it is", func(t *testing.T) {
		s, config := prepare(t)
		directory := filepath.Dir(s.socket())
		if err := os.Mkdir(directory, 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.Chmod(directory, 0o751); err != nil { // #nosec G302 -- the point of the test
			t.Fatal(err)
		}
		s.start("--config", config)
		requireMode(t, directory, 0o751, os.Getgid())
	})

	t.Run("an unknown group is refused", func(t *testing.T) {
		s := newSandbox(t)
		text := s.configText(s.defaultLogin(v).connection("prod", v.Address))
		text = strings.Replace(text, s.socket(), s.socket()+`, group: no-such-group`, 1)
		s.refused(2, s.write("config.yaml", text), "no-such-group")
	})
}

func requireMode(t *testing.T, path string, mode fs.FileMode, group int) {
	t.Helper()
	info, err := os.Lstat(path)
	if err != nil {
		t.Fatal(err)
	}
	if info.Mode().Perm() != mode {
		t.Errorf("%s has mode %o, want %o", path, info.Mode().Perm(), mode)
	}
	if owner := info.Sys().(*syscall.Stat_t); int(owner.Gid) != group {
		t.Errorf("%s belongs to group %d, want %d", path, owner.Gid, group)
	}
}
