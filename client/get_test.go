package client_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"os"
	"regexp"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc/codes"

	"github.com/secret-sidecar/secret-sidecar/client"
	"github.com/secret-sidecar/secret-sidecar/client/clienttest"
)

const (
	reference = "secret/data/mysec/api_key"
	value     = "correct horse battery staple"
)

func TestGetReturnsTheValueOfAReferenceAndOfAStoredOne(t *testing.T) {
	c, _ := clienttest.New(t, map[string]string{reference: value})
	for _, written := range []string{reference, "{{prod|ap_sep_v1|" + reference + "}}",
		" {{prod|ap_sep_v1|" + reference + "}}\n"} {
		got, err := c.Get(t.Context(), written)
		if err != nil || got != value {
			t.Errorf("Get(%q): %q, %v", written, got, err)
		}
	}
	if got, err := c.Get(t.Context(), "secret/data/mysec", client.Key("api_key")); err != nil ||
		got != value {
		t.Errorf("with the key apart: %q, %v", got, err)
	}
}

func TestAStoredReferenceMustNameOneConnection(t *testing.T) {
	c, sidecar := clienttest.New(t, map[string]string{reference: value})
	_, err := c.Get(t.Context(), "{{|ap_sep_v1|"+reference+"}}")
	if !errors.Is(err, client.ErrConnectionRequired) {
		t.Errorf("without a connection: %v", err)
	}
	if _, err := c.TestConnection(t.Context(), "", "{{|ap_sep_v1|"+reference+"}}"); !errors.Is(err,
		client.ErrConnectionRequired) {
		t.Errorf("in a test of a connection: %v", err)
	}
	if _, err := c.Invalidate(t.Context(),
		client.Invalidation{Path: "{{|ap_sep_v1|" + reference + "}}"}); !errors.Is(err,
		client.ErrConnectionRequired) {
		t.Errorf("in an invalidation: %v", err)
	}
	_, err = c.Get(t.Context(), "{{prod|ap_sep_v1|"+reference+"}}", client.Connection("other"))
	if !errors.Is(err, client.ErrInvalidRequest) {
		t.Errorf("with two: %v", err)
	}
	if asked := sidecar.Asked(reference); asked != 0 {
		t.Errorf("the sidecar was asked %d times", asked)
	}
}

func TestAnErrorTellsReasonMessageAndReference(t *testing.T) {
	c, sidecar := clienttest.New(t, nil)
	sidecar.Fail(reference, codes.PermissionDenied, "VAULT_PERMISSION_DENIED")
	_, err := c.Get(t.Context(), reference)
	failed, ok := errors.AsType[*client.Error](err)
	if !ok {
		t.Fatalf("%v is no *client.Error", err)
	}
	if failed.Reason != "VAULT_PERMISSION_DENIED" || failed.Reference != reference ||
		failed.Message == "" || failed.RetryAfter != 0 {
		t.Errorf("the error is %#v", failed)
	}
	if !errors.Is(err, client.ErrVaultPermissionDenied) ||
		errors.Is(err, client.ErrSecretNotFound) {
		t.Errorf("errors.Is does not go by the reason of %v", err)
	}
	for _, part := range []string{reference, failed.Reason, failed.Message} {
		if !strings.Contains(err.Error(), part) {
			t.Errorf("%q does not hold %q", err, part)
		}
	}
}

func TestGetAllAsksForEachReferenceOnce(t *testing.T) {
	secrets, references, want := map[string]string{}, map[string]string{}, map[string]string{}
	for i := range 600 {
		one := fmt.Sprintf("secret/data/app/%d", i)
		secrets[one] = fmt.Sprint("value ", i)
		for _, name := range []string{"first ", "second "} {
			references[name+one], want[name+one] = one, secrets[one]
		}
	}
	c, sidecar := clienttest.New(t, secrets)
	got, err := c.GetAll(t.Context(), references)
	if err != nil || !maps.Equal(got, want) {
		t.Fatalf("%d values, %v", len(got), err)
	}
	for one := range secrets {
		if asked := sidecar.Asked(one); asked != 1 {
			t.Errorf("%s was asked for %d times", one, asked)
		}
	}
}

func TestGetAllNamesEachReferenceThatFailed(t *testing.T) {
	c, sidecar := clienttest.New(t, map[string]string{reference: value})
	sidecar.Fail("secret/data/app/denied", codes.PermissionDenied, "VAULT_PERMISSION_DENIED")
	values, err := c.GetAll(t.Context(), map[string]string{
		"good": reference, "denied": "secret/data/app/denied", "missing": "secret/data/app/missing", "nobody's": "{{|ap_sep_v1|a/data/b/c}}",
	})
	if values != nil {
		t.Errorf("values came with an error: %d", len(values))
	}
	failed, ok := errors.AsType[*client.BatchError](err)
	if !ok || len(failed.Failed) != 3 {
		t.Fatalf("the error is %v", err)
	}
	for name, want := range map[string]error{
		"denied": client.ErrVaultPermissionDenied, "missing": client.ErrSecretNotFound, "nobody's": client.ErrConnectionRequired,
	} {
		if !errors.Is(failed.Failed[name], want) || !errors.Is(err, want) {
			t.Errorf("%s: %v, want %v", name, failed.Failed[name], want)
		}
		if !strings.Contains(err.Error(), name) {
			t.Errorf("%q does not name %s", err, name)
		}
	}
}

func TestAFailureThatPassesIsTriedAgain(t *testing.T) {
	c, sidecar := clienttest.New(t, nil)
	sidecar.FailFor(reference, codes.Unavailable, "VAULT_UNREACHABLE", time.Millisecond)
	asked := make(chan struct{})
	go func() {
		defer close(asked)
		for sidecar.Asked(reference) < 3 {
			if t.Context().Err() != nil {
				return
			}
		}
		sidecar.Set(reference, value)
	}()
	got, err := c.Get(t.Context(), reference)
	if err != nil || got != value {
		t.Errorf("%q, %v", got, err)
	}
	<-asked
}

func TestAFailureThatLastsIsReturnedWhenNoTimeIsLeft(t *testing.T) {
	c, sidecar := clienttest.New(t, nil)
	sidecar.FailFor(reference, codes.Unavailable, "VAULT_SEALED", time.Hour)
	_, err := c.Get(t.Context(), reference)
	failed, _ := errors.AsType[*client.Error](err)
	if !errors.Is(err, client.ErrVaultSealed) || failed.RetryAfter != time.Hour {
		t.Errorf("the error is %v", err)
	}
	if asked := sidecar.Asked(reference); asked != 1 {
		t.Errorf("it was asked for %d times", asked)
	}
	_, err = c.GetAll(t.Context(), map[string]string{"one": reference})
	if !errors.Is(err, client.ErrVaultSealed) {
		t.Errorf("in a batch the error is %v", err)
	}
}

func TestInABatchWhatPassesSoonIsTriedAgainBesideWhatPassesLate(t *testing.T) {
	c, sidecar := clienttest.New(t, nil)
	sidecar.FailFor("secret/data/app/late", codes.Unavailable, "VAULT_SEALED", time.Hour)
	sidecar.FailFor("secret/data/app/soon", codes.Unavailable, "LOGIN_PENDING", time.Millisecond)
	asked := make(chan struct{})
	go func() {
		defer close(asked)
		for sidecar.Asked("secret/data/app/soon") < 3 {
			if t.Context().Err() != nil {
				return
			}
		}
		sidecar.Set("secret/data/app/soon", value)
	}()
	_, err := c.GetAll(t.Context(),
		map[string]string{"late": "secret/data/app/late", "soon": "secret/data/app/soon"})
	failed, ok := errors.AsType[*client.BatchError](err)
	if !ok || len(failed.Failed) != 1 || !errors.Is(failed.Failed["late"], client.ErrVaultSealed) {
		t.Errorf("the error is %v", err)
	}
	if asked := sidecar.Asked("secret/data/app/late"); asked != 1 {
		t.Errorf("what passes late was asked for %d times", asked)
	}
	<-asked
}

func TestAReferenceThatIsNoTextOrTooLongFailsAlone(t *testing.T) {
	c, sidecar := clienttest.New(t, map[string]string{reference: value})
	bad := map[string]string{
		"bytes": "secret/data/\xff/key", "stored": stored("a/data/\xff/k"), "long": "secret/data/" + strings.Repeat("x", 2000) + "/key",
	}
	all := maps.Clone(bad)
	all["good"] = reference
	_, err := c.GetAll(t.Context(), all)
	failed, ok := errors.AsType[*client.BatchError](err)
	if !ok || len(failed.Failed) != len(bad) {
		t.Fatalf("the error is %v", err)
	}
	for name := range bad {
		if !errors.Is(failed.Failed[name], client.ErrInvalidPath) {
			t.Errorf("%s: %v", name, failed.Failed[name])
		}
	}
	if asked := sidecar.Asked(reference); asked != 1 {
		t.Errorf("the good one was asked for %d times", asked)
	}
}

func TestAClosedClientSaysSo(t *testing.T) {
	c, err := client.Open(t.Context(), client.Socket(shortDir(t)+"/none"), client.Wait(0))
	if err != nil {
		t.Fatal(err)
	}
	waiting := make(chan error)
	go func() { // ends with Close
		_, err := c.Get(t.Context(), reference)
		waiting <- err
	}()
	if err := c.Close(); err != nil {
		t.Fatal(err)
	}
	_, err = c.Get(t.Context(), reference)
	for _, err := range []error{err, <-waiting} {
		if err == nil || !strings.Contains(err.Error(), "the client is closed") {
			t.Errorf("the error is %v", err)
		}
	}
}

// Each reason of docs/errors.md has an error to compare with.
func TestEveryReasonOfTheErrorsPageHasAnError(t *testing.T) {
	page, err := os.ReadFile("../docs/errors.md")
	if err != nil {
		t.Fatal(err)
	}
	source, err := os.ReadFile("errors.go")
	if err != nil {
		t.Fatal(err)
	}
	rows := regexp.MustCompile(
		"(?m)^\\| `([A-Z][A-Z0-9_]*)` \\| `[A-Z_]+` \\|").FindAllStringSubmatch(string(page), -1)
	if len(rows) < 20 {
		t.Fatalf("the page has %d reasons", len(rows))
	}
	for _, row := range rows {
		if !strings.Contains(string(source), fmt.Sprintf("reason(%q)", row[1])) {
			t.Errorf("%s has no error", row[1])
		}
	}
}

func TestACallEndsWithItsContext(t *testing.T) {
	c, _ := clienttest.New(t, nil)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := c.Get(ctx, reference); !errors.Is(err, context.Canceled) ||
		!errors.Is(err, client.ErrCancelled) {
		t.Errorf("the error is %v", err)
	}
	ctx, cancel = context.WithDeadline(t.Context(), time.Now())
	defer cancel()
	if _, err := c.Get(ctx, reference); !errors.Is(err, context.DeadlineExceeded) ||
		!errors.Is(err, client.ErrDeadlineExceeded) {
		t.Errorf("the error is %v", err)
	}
}

func TestASecretPrintsWithoutItsValue(t *testing.T) {
	c, _ := clienttest.New(t, map[string]string{reference: value})
	secret, err := c.GetSecret(t.Context(), reference)
	if err != nil {
		t.Fatal(err)
	}
	type holder struct {
		Secret *client.Secret
		hidden *client.Secret
		copied client.Secret
	}
	h := holder{secret, secret, *secret}
	for _, format := range []string{"%v", "%+v", "%#v", "%s", "%q", "%x", "%d"} {
		for _, one := range []any{secret, *secret, h, &h, []any{secret},
			map[string]any{"k": *secret}} {
			if text := fmt.Sprintf(format, one); strings.Contains(text, value) ||
				strings.Contains(text, fmt.Sprintf("%x", value)) {
				t.Errorf("%s of a %T prints the value: %s", format, one, text)
			}
		}
	}
	encoded, err := json.Marshal(map[string]any{"one": secret, "two": *secret})
	if err != nil || strings.Contains(string(encoded), value) {
		t.Errorf("JSON: %s, %v", encoded, err)
	}
	var log strings.Builder
	slog.New(slog.NewJSONHandler(&log, nil)).Info("a secret", "pointer", secret, "itself", *secret,
		"group", slog.GroupValue(slog.Any("in", secret)))
	if strings.Contains(log.String(), value) {
		t.Errorf("slog: %s", log.String())
	}
	if secret.Value() != value || secret.Version != 1 || secret.Source != client.FromVault {
		t.Errorf("the secret is %v, and its value %q", secret, secret.Value())
	}
}
