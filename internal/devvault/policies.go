package devvault

import (
	"cmp"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"unicode"
)

// policy is an ACL policy: its text as it was written, and what it says.
type policy struct {
	text  string
	rules []rule
}

// rule says what may be done at the paths that its pattern matches.
type rule struct {
	pattern      string // "+" is any one segment, "*" at the end is any rest
	capabilities []string
}

var knownCapabilities = []string{"create", "read", "update", "patch", "delete", "list", "sudo",
	"deny"}

// defaultPolicy is what every token may do, unless it is made without: look after itself.
const defaultPolicy = `
path "auth/token/lookup-self"      { capabilities = ["read"] }
path "auth/token/renew-self"       { capabilities = ["update"] }
path "auth/token/revoke-self"      { capabilities = ["update"] }
path "sys/capabilities-self"       { capabilities = ["update"] }
path "sys/wrapping/wrap"           { capabilities = ["update"] }
path "sys/wrapping/lookup"         { capabilities = ["update"] }
path "sys/wrapping/unwrap"         { capabilities = ["update"] }
`

func builtinPolicies() map[string]*policy {
	rules, err := parsePolicy(defaultPolicy)
	if err != nil {
		panic("devvault: the default policy: " + err.Error())
	}
	return map[string]*policy{
		"root":              {},
		"default":           {text: defaultPolicy, rules: rules},
		"response-wrapping": {},
	}
}

// capabilitiesAt returns the capabilities of the rule that matches the path best, put together from
// every policy that has the same pattern; nil when none matches.
func capabilitiesAt(rules []rule, path string) []string {
	var matching []rule
	for _, r := range rules {
		if r.matches(path) {
			matching = append(matching, r)
		}
	}
	if len(matching) == 0 {
		return nil
	}
	best := slices.MaxFunc(matching, comparePriority)
	found := []string{}
	for _, r := range matching {
		if r.pattern == best.pattern {
			found = append(found, r.capabilities...)
		}
	}
	slices.Sort(found)
	return slices.Compact(found)
}

// comparePriority orders rules as Vault documents it: an exact path wins, then the pattern whose
// first wildcard comes later, then one without a glob, then the one with fewer "+", then the longer
// one, then the alphabet.
func comparePriority(a, b rule) int {
	return cmp.Or(
		cmp.Compare(a.firstWildcard(), b.firstWildcard()),
		-compareBool(a.isGlob(), b.isGlob()),
		-cmp.Compare(a.plusSegments(), b.plusSegments()),
		cmp.Compare(len(a.pattern), len(b.pattern)),
		cmp.Compare(a.pattern, b.pattern),
	)
}

func compareBool(a, b bool) int {
	switch {
	case a == b:
		return 0
	case a:
		return 1
	}
	return -1
}

func (r rule) isGlob() bool { return strings.HasSuffix(r.pattern, "*") }

func (r rule) plusSegments() int {
	n := 0
	for segment := range strings.SplitSeq(r.pattern, "/") {
		if segment == "+" {
			n++
		}
	}
	return n
}

// firstWildcard returns where the first wildcard stands; past any path when there is none.
func (r rule) firstWildcard() int {
	at := 0
	for segment := range strings.SplitSeq(strings.TrimSuffix(r.pattern, "*"), "/") {
		if segment == "+" {
			return at
		}
		at += len(segment) + 1
	}
	if r.isGlob() {
		return len(r.pattern) - 1
	}
	return int(^uint(0) >> 1)
}

func (r rule) matches(path string) bool {
	pattern, glob := strings.CutSuffix(r.pattern, "*")
	want, have := strings.Split(pattern, "/"), strings.Split(path, "/")
	if len(have) < len(want) || len(have) > len(want) && !glob {
		return false
	}
	for i, segment := range want {
		last := i == len(want)-1
		switch {
		case segment == "+":
		case last && glob && strings.HasPrefix(have[i], segment):
		case segment != have[i]:
			return false
		}
	}
	return true
}

// reaches reports whether the rule allows something at or below the path, which ends in "/".
func (r rule) reaches(path string) bool {
	if slices.Contains(r.capabilities, "deny") {
		return false
	}
	literal, _, _ := strings.Cut(strings.TrimSuffix(r.pattern, "*"), "+")
	if strings.HasPrefix(literal, path) {
		return true
	}
	return literal != r.pattern && strings.HasPrefix(path, literal)
}

// parsePolicy parses a policy in HCL or JSON. Its errors are answers of Vault's.
func parsePolicy(text string) ([]rule, error) {
	var rules []rule
	var err error
	if strings.HasPrefix(strings.TrimSpace(text), "{") {
		rules, err = parsePolicyJSON(text)
	} else {
		rules, err = (&policyParser{rest: text}).parse()
	}
	if err != nil {
		return nil, badRequest("failed to parse policy: %v", err)
	}
	for _, r := range rules {
		for _, capability := range r.capabilities {
			if !slices.Contains(knownCapabilities, capability) {
				return nil, badRequest("failed to parse policy: path %q: invalid capability %q",
					r.pattern, capability)
			}
		}
	}
	return rules, nil
}

func parsePolicyJSON(text string) ([]rule, error) {
	var document struct {
		Path map[string]struct {
			Capabilities []string `json:"capabilities"`
		} `json:"path"`
	}
	decoder := json.NewDecoder(strings.NewReader(text))
	decoder.DisallowUnknownFields()
	if err := decoder.Decode(&document); err != nil {
		return nil, err
	}
	var rules []rule
	for pattern, block := range document.Path {
		rules = append(rules, newRule(pattern, block.Capabilities))
	}
	return rules, nil
}

func newRule(pattern string, capabilities []string) rule {
	return rule{pattern: strings.TrimPrefix(pattern, "/"), capabilities: capabilities}
}

// policyParser reads `path "…" { capabilities = ["…"] }`, any number of times.
type policyParser struct {
	rest string
	err  error // the first mistake; everything after it is skipped
}

func (p *policyParser) parse() ([]rule, error) {
	var rules []rule
	for p.skipSpace(); p.rest != "" && p.err == nil; p.skipSpace() {
		p.want("path")
		pattern := p.quoted()
		p.want("{")
		var capabilities []string
		for p.err == nil && !p.take("}") {
			p.want("capabilities")
			p.want("=")
			capabilities = p.list()
		}
		rules = append(rules, newRule(pattern, capabilities))
	}
	return rules, p.err
}

func (p *policyParser) list() []string {
	var items []string
	p.want("[")
	for p.err == nil && !p.take("]") {
		items = append(items, p.quoted())
		p.take(",")
	}
	return items
}

func (p *policyParser) quoted() string {
	p.want(`"`)
	text, rest, ok := strings.Cut(p.rest, `"`)
	if !ok {
		p.fail(`a quoted string`)
		return ""
	}
	p.rest = rest
	return text
}

func (p *policyParser) want(token string) {
	if !p.take(token) {
		p.fail(token)
	}
}

func (p *policyParser) take(token string) bool {
	p.skipSpace()
	rest, ok := strings.CutPrefix(p.rest, token)
	if ok {
		p.rest = rest
	}
	return ok
}

func (p *policyParser) fail(expected string) {
	if p.err == nil {
		line, _, _ := strings.Cut(p.rest, "\n")
		p.err = fmt.Errorf("expected %s before %q (this development Vault understands "+
			"capabilities only)", expected, line)
	}
}

// skipSpace skips white space and comments.
func (p *policyParser) skipSpace() {
	for {
		p.rest = strings.TrimLeftFunc(p.rest, unicode.IsSpace)
		var end string
		switch {
		case strings.HasPrefix(p.rest, "#"), strings.HasPrefix(p.rest, "//"):
			end = "\n"
		case strings.HasPrefix(p.rest, "/*"):
			end = "*/"
		default:
			return
		}
		_, p.rest, _ = strings.Cut(p.rest, end)
	}
}
