package vaulttest

import (
	"bufio"
	"encoding/json"
	"fmt"
	"io"
	"math"
	"slices"
	"strings"
	"testing"

	"github.com/secret-sidecar/secret-sidecar/internal/devvault"
)

// Request is one request that reached Vault.
type Request struct {
	// Operation is Vault's name for it: create, read, update, patch, delete or list. A login is an
	// update.
	Operation string
	// Path is the path after /v1/, decoded, for example "secret/data/app".
	Path string
}

// Requests returns what reached Vault since the Vault was made or Mark was called, oldest first: of
// the real one what its audit log says, and alike of devvault. Left out are the requests with a
// root token, which are the test's own. On a Vault that tests share, those of other tests are among
// them: count by path.
func (v *Vault) Requests(t testing.TB) []Request {
	t.Helper()
	all := v.all(t)
	v.mu.Lock()
	defer v.mu.Unlock()
	return slices.Clone(all[v.mark:])
}

// RequestsTo returns those of Requests whose path begins with prefix.
func (v *Vault) RequestsTo(t testing.TB, prefix string) []Request {
	t.Helper()
	return slices.DeleteFunc(v.Requests(t),
		func(r Request) bool { return !strings.HasPrefix(r.Path, prefix) })
}

// Mark makes Requests forget what has reached Vault so far.
func (v *Vault) Mark(t testing.TB) {
	t.Helper()
	n := len(v.all(t))
	v.mu.Lock()
	defer v.mu.Unlock()
	v.mark = n
}

func (v *Vault) all(t testing.TB) []Request {
	t.Helper()
	if v.process == nil {
		v.mu.Lock()
		defer v.mu.Unlock()
		return slices.Clone(v.recorded)
	}
	requests, err := v.process.audited()
	if err != nil {
		t.Fatalf("read the audit log: %v", err)
	}
	return requests
}

// record is devvault's OnRequest.
func (v *Vault) record(r devvault.Request) {
	if r.Root {
		return
	}
	v.mu.Lock()
	defer v.mu.Unlock()
	v.recorded = append(v.recorded, Request{Operation: r.Operation, Path: r.Path})
}

// auditLine is what matters of a line of Vault's audit log.
type auditLine struct {
	Type string `json:"type"`
	Auth struct {
		Policies []string `json:"policies"`
	} `json:"auth"`
	Request struct {
		Operation string `json:"operation"`
		Path      string `json:"path"`
	} `json:"request"`
}

// audited reads the audit log. Vault writes the line before it carries the request out, so that an
// answered request is always there.
func (p *process) audited() ([]Request, error) {
	lines := bufio.NewReader(io.NewSectionReader(p.audit, 0, math.MaxInt64))
	var requests []Request
	for {
		text, err := lines.ReadBytes('\n')
		if err == io.EOF {
			return requests, nil // a last line without an end is still being written
		}
		if err != nil {
			return nil, err
		}
		var line auditLine
		if err := json.Unmarshal(text, &line); err != nil {
			return nil, fmt.Errorf("line %d: %w", len(requests)+1, err)
		}
		if line.Type == "request" && !slices.Contains(line.Auth.Policies, "root") {
			requests = append(requests,
				Request{Operation: line.Request.Operation, Path: line.Request.Path})
		}
	}
}
