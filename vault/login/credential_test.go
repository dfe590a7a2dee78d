package login_test

import (
	"bytes"
	"encoding/binary"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
	"unicode/utf16"

	"github.com/secret-sidecar/secret-sidecar/internal/redact"
	"github.com/secret-sidecar/secret-sidecar/vault/login"
)

const secret = "5f3c0d2e-hush"

// inUTF16 encodes a text without a byte order mark.
func inUTF16(text string, order binary.AppendByteOrder) string {
	var encoded []byte
	for _, unit := range utf16.Encode([]rune(text)) {
		encoded = order.AppendUint16(encoded, unit)
	}
	return string(encoded)
}

// everyWay gives a text as a literal and as a file.
func everyWay(t *testing.T, text string) map[string]login.Credential {
	t.Helper()
	file := filepath.Join(t.TempDir(), "secret_id")
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return map[string]login.Credential{"secret_id": {Value: redact.New(text)}, "secret_id_file": {File: file}}
}

func TestBlankSpaceAndByteOrderMarksAroundACredentialDoNotCount(t *testing.T) {
	for name, text := range map[string]string{
		"nothing around it":       secret,
		"a line end":              secret + "\n",
		"a line end of Windows":   secret + "\r\n",
		"empty lines":             "\n\n" + secret + "\n\n",
		"spaces and tabs":         " \t" + secret + "\t ",
		"a byte order mark":       "\ufeff" + secret,
		"a mark behind space":     " \n\ufeff " + secret,
		"a mark at the end":       secret + "\ufeff\n",
		"two marks":               "\ufeff\ufeff" + secret,
		"a no-break space":        "\u00a0" + secret + "\u00a0",
		"wide and narrow spaces":  "\u3000" + secret + "\u2009\u202f",
		"a zero width space":      "\u200b" + secret,
		"a line separator":        secret + "\u2028\u2029\u0085",
		"more space than 4 KiB":   strings.Repeat(" ", 5000) + secret + strings.Repeat("\n", 5000),
		"vertical tabs, formfeed": secret + "\v\f",
	} {
		for setting, credential := range everyWay(t, text) {
			got, err := credential.Read(setting)
			if err != nil || got.Reveal() != secret {
				t.Errorf("%s, %s: %q, %v", name, setting, got.Reveal(), err)
			}
		}
	}
}

func TestWhatACredentialMayHold(t *testing.T) {
	for _, text := range []string{
		"a space inside", "pässwörd", "hvs.CAESIJ-x_y", "#!$%&{}", strings.Repeat("x", 4096), "/9j4AAQSkZJRg==", "/x+y", "a/b", ".", "~",
	} {
		for setting, credential := range everyWay(t, text) {
			got, err := credential.Read(setting)
			if err != nil || got.Reveal() != text {
				t.Errorf("%q, %s: %q, %v", text, setting, got.Reveal(), err)
			}
		}
	}
}

func TestWhatCannotBeACredentialIsRefused(t *testing.T) {
	for name, test := range map[string]struct{ text, want string }{
		"two lines":               {secret + "\n" + secret + "\n", "holds several lines: "},
		"two lines of an old Mac": {secret + "\r" + secret, "holds several lines: "},
		"a line separator":        {secret + "\u2028" + secret, "holds several lines: "},
		"a next line":             {secret + "\u0085" + secret, "holds several lines: "},
		"a tab inside":            {secret + "\t" + secret, "holds a control character: "},
		"a NUL":                   {secret + "\x00", "holds a control character: "},
		"an escape sequence":      {"\x1b[32m" + secret, "holds a control character: "},
		"a delete":                {secret + "\x7f", "holds a control character: "},
		"a C1 control":            {secret + "\u009b", "holds a control character: "},
		"Latin-1":                 {secret + "\xe9", "is not UTF-8: save it as UTF-8"},
		"cut off UTF-8":           {secret + "\xc3", "is not UTF-8: "},
		"UTF-16, little endian":   {"\xff\xfe" + inUTF16(secret, binary.LittleEndian), "looks like UTF-16: save it as UTF-8"},
		"UTF-16, big endian":      {"\xfe\xff" + inUTF16(secret, binary.BigEndian), "looks like UTF-16: save it as UTF-8"},
		"UTF-16LE, no mark":       {inUTF16(secret+"\r\n", binary.LittleEndian), "looks like UTF-16: save it as UTF-8"},
		"UTF-16BE, no mark":       {inUTF16(secret, binary.BigEndian), "looks like UTF-16: save it as UTF-8"},
		"4097 bytes":              {strings.Repeat("x", 4097), "holds more than 4096 bytes: "},
		"100 KiB":                 {strings.Repeat("x", 100<<10), "holds more than 4096 bytes: "},
		"a certificate":           {"-----BEGIN CERTIFICATE-----\n" + secret + "\n-----END CERTIFICATE-----\n", "holds several lines: "},
	} {
		for setting, credential := range everyWay(t, test.text) {
			got, err := credential.Read(setting)
			if !errors.Is(err, login.ErrMalformed) || errors.Is(err, login.ErrUnreadable) || !got.IsEmpty() {
				t.Errorf("%s, %s: %v", name, setting, err)
				continue
			}
			where := strings.TrimSpace(setting + " " + credential.File)
			if !strings.HasPrefix(err.Error(), where+" "+test.want) {
				t.Errorf("%s, %s: %v", name, setting, err)
			}
			if strings.Contains(err.Error(), "hush") {
				t.Errorf("%s, %s: the message quotes the credential: %v", name, setting, err)
			}
		}
	}
}

func TestABlankFileMayBeInTheMiddleOfARotationAndABlankLiteralIsWrong(t *testing.T) {
	for _, text := range []string{" ", "\n", "\ufeff", "\u00a0\r\n", strings.Repeat(" ", 20<<10)} {
		for setting, credential := range everyWay(t, text) {
			want := login.ErrMalformed
			if credential.File != "" {
				want = login.ErrUnreadable
			}
			if _, err := credential.Read(setting); !errors.Is(err, want) || !strings.Contains(err.Error(), "is empty: ") {
				t.Errorf("%q, %s: %v", text, setting, err)
			}
		}
	}
	empty := everyWay(t, "")["secret_id_file"]
	if _, err := empty.Read("secret_id_file"); !errors.Is(err, login.ErrUnreadable) {
		t.Errorf("an empty file: %v", err)
	}
}

func TestFilesThatCannotBeReadAreToldFromMalformedOnes(t *testing.T) {
	directory := t.TempDir()
	loop := filepath.Join(directory, "loop")
	if err := os.Symlink(loop, loop); err != nil {
		t.Fatal(err)
	}
	for file, want := range map[string]string{
		filepath.Join(directory, "absent"): "cannot be read: no such file or directory; create it",
		directory:                          "is a directory: ",
		loop:                               "cannot be read: ",
		"/dev/zero":                        "is no regular file: ",
		"/dev/null":                        "is no regular file: ",
	} {
		_, err := login.Credential{File: file}.Read("role_id_file")
		if !errors.Is(err, login.ErrUnreadable) || errors.Is(err, login.ErrMalformed) || !strings.HasPrefix(err.Error(), "role_id_file "+file+" "+want) {
			t.Errorf("%s: %v", file, err)
		}
	}
}

func TestAFileThatMayNotBeReadSaysSo(t *testing.T) {
	if os.Geteuid() == 0 {
		t.Skip("root may read everything")
	}
	credential := everyWay(t, secret)["secret_id_file"]
	if err := os.Chmod(credential.File, 0); err != nil {
		t.Fatal(err)
	}
	if _, err := credential.Read("secret_id_file"); !errors.Is(err, login.ErrUnreadable) || !strings.Contains(err.Error(), "permission denied") {
		t.Errorf("error %v", err)
	}
}

func TestAPipeNeverBlocks(t *testing.T) {
	pipe := filepath.Join(t.TempDir(), "pipe")
	if err := syscall.Mkfifo(pipe, 0o600); err != nil {
		t.Fatal(err)
	}
	writer, err := os.OpenFile(pipe, os.O_RDWR, 0) // a writer that never writes
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = writer.Close() }()
	done := make(chan error, 1)
	go func() {
		_, err := login.Credential{File: pipe}.Read("secret_id_file")
		done <- err
	}()
	select {
	case err := <-done:
		if !errors.Is(err, login.ErrUnreadable) {
			t.Errorf("error %v", err)
		}
	case <-time.After(time.Minute):
		t.Error("Read waits for somebody to write")
	}
}

func TestALiteralThatIsAPathSaysWhichSettingTakesAPath(t *testing.T) {
	for _, path := range []string{"/run/secrets/hush", "./hush", "../hush", "~/hush", " /run/hush\n"} {
		_, err := login.Credential{Value: redact.New(path)}.Read("secret_id")
		if !errors.Is(err, login.ErrPath) || !errors.Is(err, login.ErrMalformed) || err.Error() != "secret_id holds a path: use secret_id_file" {
			t.Errorf("%q: %v", path, err)
		}
	}
	inFile := everyWay(t, "/run/secrets/x")["secret_id_file"]
	if _, err := inFile.Read("secret_id_file"); err != nil {
		t.Errorf("a file may hold what looks like a path: %v", err)
	}
}

func TestNoCredentialReadsAsTheEmptyOne(t *testing.T) {
	got, err := login.Credential{}.Read("secret_id")
	if err != nil || !got.IsEmpty() || !(login.Credential{}).IsZero() || (login.Credential{File: "x"}).IsZero() {
		t.Errorf("%v, %v", got, err)
	}
}

func TestAFileWinsOverALiteral(t *testing.T) {
	credential := everyWay(t, secret)["secret_id_file"]
	credential.Value = redact.New("another")
	if got, err := credential.Read("secret_id_file"); err != nil || got.Reveal() != secret {
		t.Errorf("%q, %v", got.Reveal(), err)
	}
}

func FuzzRead(f *testing.F) {
	f.Add([]byte(secret + "\n"))
	f.Add([]byte("\xff\xfea\x00"))
	f.Fuzz(func(t *testing.T, content []byte) {
		got, err := login.Credential{Value: redact.New(string(content))}.Read("secret_id")
		if err != nil || len(content) == 0 {
			return
		}
		if !bytes.Contains(content, []byte(got.Reveal())) || got.IsEmpty() || len(got.Reveal()) > 4096 {
			t.Fatalf("%q became %q", content, got.Reveal())
		}
		if again, err := (login.Credential{Value: got}).Read("secret_id"); err != nil || again != got {
			t.Fatalf("%q does not survive: %q, %v", content, again.Reveal(), err)
		}
	})
}
