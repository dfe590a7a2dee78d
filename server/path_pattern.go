package server

import (
	"errors"
	"fmt"
	"strings"
	"unicode"

	"github.com/secret-sidecar/secret-sidecar/vault"
)

// projectVariable stands in a pattern for the project that a request is for.
const projectVariable = "{project_id}"

// PathPattern matches references, segment by segment. The zero value matches none; ParsePathPattern
// makes them. See "Paths" of docs/contract.md.
type PathPattern struct {
	text     string
	segments []patternSegment
}

// patternSegment is one segment of a pattern.
type patternSegment struct {
	kind segmentKind
	// prefix is the whole of a literal; prefix and suffix stand around a project.
	prefix, suffix string
}

type segmentKind int

const (
	segmentLiteral segmentKind = iota
	segmentAny                 // *: one segment
	segmentRest                // **: what is left, at least one segment
	segmentProject             // holds {project_id}
)

// String returns the pattern as it was written.
func (p PathPattern) String() string { return p.text }

// ParsePathPattern parses `mount/data/path/to/secret/key`, where `*` is any one segment, `**` at the
// end is one segment or more, and {project_id} is the project of the request. The error says what to
// change, and does not quote the pattern.
func ParsePathPattern(text string) (PathPattern, error) {
	p := PathPattern{text: text}
	parts := strings.Split(text, "/")
	for i, part := range parts {
		segment, err := parseSegment(part)
		switch {
		case err != nil:
			return PathPattern{}, err
		case segment.kind == segmentRest && i < len(parts)-1:
			return PathPattern{}, errors.New("** is what is left of a path: write it at the end, " +
				"or * for one segment")
		}
		p.segments = append(p.segments, segment)
	}
	if err := p.checkMatches(); err != nil {
		problem := strings.TrimPrefix(err.Error(), vault.ErrInvalidReference.Error()+": ")
		return PathPattern{}, fmt.Errorf("matches no reference: %s", problem)
	}
	return p, nil
}

// checkMatches returns what keeps the pattern from matching any reference. A star may stand for the
// data segment, and then for nothing else.
func (p PathPattern) checkMatches() error {
	if _, err := vault.ParseReference(p.sample("data", "data/data/data/data"), ""); err == nil {
		return nil
	}
	_, err := vault.ParseReference(p.sample("x", "x"), "")
	return err
}

func parseSegment(text string) (patternSegment, error) {
	before, after, holdsProject := strings.Cut(text, projectVariable)
	switch {
	case text == "*":
		return patternSegment{kind: segmentAny}, nil
	case text == "**":
		return patternSegment{kind: segmentRest}, nil
	case strings.Contains(text, "*"):
		return patternSegment{}, errors.New("a star stands for a whole segment: " +
			"write * between slashes, or ** at the end")
	case strings.ContainsAny(before+after, "{}"), holdsProject && strings.HasSuffix(before, "$"):
		return patternSegment{}, errors.New("the one variable is {project_id}, once in a segment")
	case holdsProject:
		return patternSegment{kind: segmentProject, prefix: before, suffix: after}, nil
	}
	return patternSegment{prefix: text}, nil
}

// sample is a text that the pattern matches, with these for its stars.
func (p PathPattern) sample(star, stars string) string {
	segments := make([]string, len(p.segments))
	for i, s := range p.segments {
		switch s.kind {
		case segmentLiteral:
			segments[i] = s.prefix
		case segmentAny:
			segments[i] = star
		case segmentRest:
			segments[i] = stars
		case segmentProject:
			segments[i] = s.prefix + "p" + s.suffix
		}
	}
	return strings.Join(segments, "/")
}

// target is what a pattern is matched with: one key of a secret, or whichever key of it.
type target struct {
	secret string // its API path
	key    string // one segment, whatever it holds; means nothing with anyKey
	anyKey bool
}

func targetOf(reference vault.Reference) target {
	return target{secret: reference.Path, key: reference.Key}
}

// matches reports whether the pattern covers the target for the project. A project that could stand
// for anything but one plain segment has none.
func (p PathPattern) matches(t target, project string) bool {
	rest, inPath := t.secret, true
	for i, s := range p.segments {
		if s.kind == segmentRest {
			return true // at least the key is left
		}
		if !inPath {
			return i == len(p.segments)-1 && (t.anyKey || s.matches(t.key, project))
		}
		var segment string
		segment, rest, inPath = strings.Cut(rest, "/")
		if !s.matches(segment, project) {
			return false
		}
	}
	return false // the reference is longer
}

func (s patternSegment) matches(text, project string) bool {
	switch s.kind {
	case segmentAny, segmentRest:
		return true
	case segmentProject:
		inner, ok := s.project(text)
		return ok && inner == project
	case segmentLiteral:
		return text == s.prefix
	}
	return false
}

// project returns the project for which the segment matches the text.
func (s patternSegment) project(text string) (string, bool) {
	inner, begins := strings.CutPrefix(text, s.prefix)
	inner, ends := strings.CutSuffix(inner, s.suffix)
	return inner, begins && ends && isPlainSegment(inner)
}

// isPlainSegment reports whether a project may stand in a path. It holds nothing that Vault, or a
// proxy before it, could take for anything but itself.
func isPlainSegment(project string) bool {
	isOdd := func(r rune) bool {
		return unicode.IsSpace(r) || !unicode.IsPrint(r) || strings.ContainsRune(`/\%*?#{}`, r) ||
			r == unicode.ReplacementChar
	}
	return strings.Trim(project, ".") != "" && !strings.ContainsFunc(project, isOdd)
}

// projectIn returns the one project for which the pattern may match the target; false is that the
// project does not matter, or no project will do.
func (p PathPattern) projectIn(t target) (string, bool) {
	rest, inPath := t.secret, true
	for _, s := range p.segments {
		segment := t.key
		if inPath {
			segment, rest, inPath = strings.Cut(rest, "/")
		}
		if s.kind == segmentProject {
			return s.project(segment)
		}
	}
	return "", false
}

// covers reports whether one of the patterns matches; no patterns cover everything.
func covers(patterns []PathPattern, t target, project string) bool {
	if len(patterns) == 0 {
		return true
	}
	for i := range patterns {
		if patterns[i].matches(t, project) {
			return true
		}
	}
	return false
}
