package devvault

import (
	"encoding/json"
	"fmt"
	"maps"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"time"
)

// defaultMaxVersions is how many versions of a secret are kept when nobody says otherwise.
const defaultMaxVersions = 10

// kv2Backend is a KV version 2 engine: secrets with versions that can be deleted and destroyed.
type kv2Backend struct {
	secrets map[string]*kvSecret
	config  kvSettings
}

// kvSettings are the settings of an engine and of a secret; the zero value leaves it to the next
// above.
type kvSettings struct {
	maxVersions int
	casRequired bool
}

// kvSecret is one secret. Versions are numbered from 1 and never reused.
type kvSecret struct {
	created  time.Time
	updated  time.Time
	settings kvSettings
	custom   map[string]string
	current  int
	versions map[int]*kvVersion
}

// kvVersion is one version of a secret.
type kvVersion struct {
	data      json.RawMessage // as Vault gives it back; null when there is none
	created   time.Time
	deleted   time.Time // zero when it is not
	destroyed bool
}

func newKV2Backend() *kv2Backend { return &kv2Backend{secrets: make(map[string]*kvSecret)} }

func (b *kv2Backend) exists(rest string) bool {
	section, name, _ := strings.Cut(rest, "/")
	switch section {
	case "data", "metadata":
		return b.secrets[name] != nil
	}
	return true
}

func (b *kv2Backend) handle(r *request) (*answer, error) {
	section, name, below := strings.Cut(r.rest, "/")
	switch {
	case section == "config" && !below:
		return b.handleConfig(r)
	case section == "metadata" && r.op == opList:
		return listKeys(maps.Keys(b.secrets), name)
	case section == "data" && !below:
		return warn("Non-listing operations on the root of a K/V v2 mount are not supported."), nil
	case name == "":
		return wrongPath(r), nil
	case strings.HasSuffix(name, "/") && (r.op == opCreate || r.op == opUpdate):
		return nil, badRequest("cannot write to a path ending in '/'")
	case strings.HasSuffix(name, "/"):
		return wrongPath(r), nil
	}
	switch section {
	case "data":
		return b.handleData(r, name)
	case "metadata":
		return b.handleMetadata(r, name)
	case "delete", "undelete", "destroy":
		return b.handleVersions(r, section, name)
	}
	return wrongPath(r), nil
}

func warn(text string) *answer {
	return &answer{status: http.StatusNotFound, warnings: []string{text}}
}

// wrongPath answers a path that only a KV version 1 engine would know.
func wrongPath(r *request) *answer {
	command := map[operation]string{opCreate: "put", opUpdate: "put", opDelete: "delete",
		opList: "list", opPatch: "patch"}[r.op]
	if command == "" {
		command = "get"
	}
	return warn("Invalid path for a versioned K/V secrets engine. See the API docs for the " +
		"appropriate API endpoints to use. " +
		"If using the Vault CLI, use 'vault kv " + command + "' for this operation.")
}

func (b *kv2Backend) handleData(r *request, name string) (*answer, error) {
	switch r.op {
	case opRead:
		return b.read(name, r.query.Get("version"))
	case opCreate, opUpdate:
		return b.write(name, r.body)
	case opDelete:
		if s := b.secrets[name]; s != nil {
			s.delete(s.current)
		}
		return nil, nil
	}
	return nil, errUnsupportedOperation
}

func (b *kv2Backend) read(name, version string) (*answer, error) {
	wanted := 0
	if version != "" {
		var err error
		if wanted, err = strconv.Atoi(version); err != nil {
			return nil,
				badRequest("Field validation failed: error converting input for field \"version\": "+
					"cannot parse '' as int: strconv.ParseInt: parsing %q: invalid syntax", version)
		}
	}
	s := b.secrets[name]
	if s == nil {
		return nil, errNotFound
	}
	if wanted <= 0 {
		wanted = s.current
	}
	found := s.versions[wanted]
	if found == nil {
		return nil, errNotFound
	}
	a := &answer{data: map[string]any{"data": found.data, "metadata": s.describe(wanted)}}
	if found.gone() {
		a.data["data"], a.status = nil, http.StatusNotFound
	}
	return a, nil
}

func (v *kvVersion) gone() bool { return v.destroyed || !v.deleted.IsZero() }

func (b *kv2Backend) write(name string, body fields) (*answer, error) {
	data, err := storedForm(body)
	if err != nil {
		return nil, err
	}
	s := b.secrets[name]
	if err := b.checkAndSet(s, body); err != nil {
		return nil, err
	}
	now := time.Now()
	if s == nil {
		s = b.newSecret(name, now)
	}
	s.current++
	s.updated = now
	s.versions[s.current] = &kvVersion{data: data, created: now}
	s.dropOldest(b.config)
	return &answer{data: s.describe(s.current)}, nil
}

func (b *kv2Backend) newSecret(name string, now time.Time) *kvSecret {
	s := &kvSecret{created: now, updated: now, versions: make(map[int]*kvVersion)}
	b.secrets[name] = s
	return s
}

// storedForm returns the data of a write as Vault gives it back: it keeps numbers as float64.
func storedForm(body fields) (json.RawMessage, error) {
	data, ok := body["data"]
	if !ok {
		return nil, badRequest("no data provided")
	}
	if _, isObject := data.(map[string]any); !isObject && data != nil {
		return nil,
			badRequest("error converting input for field \"data\": '' expected a map, got '%s'",
				typeName(data))
	}
	text, err := json.Marshal(data)
	if err != nil {
		return nil, badRequest("%v", err)
	}
	var object map[string]any
	if err := json.Unmarshal(text, &object); err != nil {
		return nil, badRequest("%v", err)
	}
	return json.Marshal(object)
}

func typeName(value any) string {
	if _, isList := value.([]any); isList {
		return "slice"
	}
	return fmt.Sprintf("%T", value)
}

func (b *kv2Backend) checkAndSet(s *kvSecret, body fields) error {
	options, _ := body["options"].(map[string]any)
	current, required := 0, b.config.casRequired
	if s != nil {
		current, required = s.current, required || s.settings.casRequired
	}
	if options["cas"] == nil {
		if required {
			return badRequest("check-and-set parameter required for this call")
		}
		return nil
	}
	cas := -1
	if err := fields(options).setInt("cas", &cas); err != nil {
		return badRequest("error parsing check-and-set parameter")
	}
	if cas != current {
		return badRequest("check-and-set parameter did not match the current version")
	}
	return nil
}

// dropOldest forgets the versions that are more than the settings keep.
func (s *kvSecret) dropOldest(engine kvSettings) {
	keep := max(s.settings.maxVersions, engine.maxVersions)
	if s.settings.maxVersions > 0 {
		keep = s.settings.maxVersions
	}
	if keep <= 0 {
		keep = defaultMaxVersions
	}
	maps.DeleteFunc(s.versions, func(n int, _ *kvVersion) bool { return n <= s.current-keep })
}

// describe returns the metadata of a version.
func (s *kvSecret) describe(n int) map[string]any {
	v := s.versions[n]
	return map[string]any{
		"created_time": timestamp(v.created), "custom_metadata": s.custom,
		"deletion_time": timestamp(v.deleted),
		"destroyed":     v.destroyed, "version": n,
	}
}

func (s *kvSecret) delete(n int) {
	if v := s.versions[n]; v != nil && !v.gone() {
		v.deleted = time.Now()
	}
}

func (b *kv2Backend) handleVersions(r *request, action, name string) (*answer, error) {
	if r.op != opUpdate {
		return nil, errUnsupportedOperation
	}
	numbers, err := r.body.versions()
	if err != nil {
		return nil, err
	}
	s := b.secrets[name]
	if s == nil {
		return nil, nil
	}
	for _, n := range numbers {
		v := s.versions[n]
		switch {
		case v == nil:
		case action == "delete":
			s.delete(n)
		case action == "undelete":
			v.deleted = time.Time{}
		case action == "destroy":
			v.destroyed, v.data = true, nil
		}
	}
	return nil, nil
}

func (b *kv2Backend) handleMetadata(r *request, name string) (*answer, error) {
	s := b.secrets[name]
	switch r.op {
	case opRead:
		if s == nil {
			return nil, errNotFound
		}
		return &answer{data: s.metadata()}, nil
	case opCreate, opUpdate:
		if s == nil {
			s = b.newSecret(name, time.Now())
		}
		if r.body.has("custom_metadata") {
			s.custom = r.body.strings("custom_metadata")
		}
		return nil, s.settings.configure(r.body)
	case opDelete:
		delete(b.secrets, name)
		return nil, nil
	}
	return nil, errUnsupportedOperation
}

func (s *kvSecret) metadata() map[string]any {
	versions := make(map[string]any)
	for n, v := range s.versions {
		versions[strconv.Itoa(n)] = map[string]any{
			"created_time": timestamp(v.created), "deletion_time": timestamp(v.deleted),
			"destroyed": v.destroyed,
		}
	}
	oldest := 0
	if len(s.versions) > 0 && s.current > len(s.versions) {
		oldest = slices.Min(slices.Collect(maps.Keys(s.versions)))
	}
	return map[string]any{
		"cas_required": s.settings.casRequired, "created_time": timestamp(s.created),
		"current_version": s.current,
		"custom_metadata": s.custom, "delete_version_after": "0s",
		"max_versions":   s.settings.maxVersions,
		"oldest_version": oldest, "updated_time": timestamp(s.updated), "versions": versions,
	}
}

func (b *kv2Backend) handleConfig(r *request) (*answer, error) {
	switch r.op {
	case opRead:
		return &answer{data: map[string]any{
			"cas_required": b.config.casRequired, "delete_version_after": "0s",
			"max_versions": b.config.maxVersions,
		}}, nil
	case opCreate, opUpdate:
		return nil, b.config.configure(r.body)
	}
	return nil, errUnsupportedOperation
}

func (c *kvSettings) configure(body fields) error {
	if err := body.setInt("max_versions", &c.maxVersions); err != nil {
		return err
	}
	return body.setBool("cas_required", &c.casRequired)
}
