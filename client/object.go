package client

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"reflect"
	"slices"
	"strconv"
	"strings"
)

// ErrCycle is the error of ResolveObject for a value that holds itself.
var ErrCycle = errors.New("the value holds itself: resolve its parts one by one")

// KeepFailed makes ResolveObject return the value with those references left in it that failed,
// together with the *BatchError that names them.
func KeepFailed() Option { return func(c *call) { c.keep = true } }

// ResolveObject returns a copy of a value in which each stored reference is replaced by its secret.
//
// The value is what encoding/json makes: map[string]any and []any at any depth, and anything in
// them. map[string]string and []string count too. A string that is exactly one stored reference
// (see StoredReference) is replaced. Every other string, and every value of another type, comes
// back as it is: the copy shares it. The value itself is not changed.
//
// Each distinct reference is asked for once, 256 at a time. When any fails, the result is nil and
// the error a *BatchError, unless KeepFailed is given. A value that holds itself is ErrCycle.
func (c *Client) ResolveObject(ctx context.Context, value any, options ...Option) (any, error) {
	o := optionsOf(options)
	ctx, cancel := o.limit(ctx)
	defer cancel()
	found := &finder{copies: map[holder]any{}, open: map[holder]bool{}}
	copied, err := found.copyOf(value)
	if err != nil {
		return nil, err
	}
	references := map[string]string{}
	for _, s := range found.slots {
		references[s.reference] = s.reference
	}
	values, failed, err := c.all(ctx, o, references)
	if err != nil {
		return nil, err
	}
	problems := found.fill(values, failed)
	switch {
	case len(problems) == 0:
		return *copied, nil
	case o.keep:
		return *copied, &BatchError{Failed: problems}
	}
	return nil, &BatchError{Failed: problems}
}

// finder copies a value and finds the stored references in it. It keeps what it has still to look
// at in a list of its own: a value may be deeper than a stack.
type finder struct {
	slots  []slot
	copies map[holder]any  // what stands in two places is one thing in the copy too
	open   map[holder]bool // what holds that which is looked at
	later  []func() error  // the last one first
}

// holder tells maps and slices apart.
type holder struct {
	pointer uintptr
	length  int
}

// slot is where a reference stands in the copy.
type slot struct {
	reference string
	at        *place
	put       func(secret string)
}

// place is a name in what stands at another place; nil is the value itself.
type place struct {
	in   *place
	name string
}

// pointer returns a place as a JSON pointer.
func (p *place) pointer() string {
	var names []string
	for ; p != nil; p = p.in {
		names = append(names, "/"+pointerEscapes.Replace(p.name))
	}
	slices.Reverse(names)
	return strings.Join(names, "")
}

var pointerEscapes = strings.NewReplacer("~", "~0", "/", "~1")

// copyOf returns a pointer to the copy, for a value that is itself a reference.
func (f *finder) copyOf(value any) (*any, error) {
	copied := new(any)
	err := f.visit(value, nil, func(one any) { *copied = one })
	for err == nil && len(f.later) > 0 {
		last := len(f.later) - 1
		next := f.later[last]
		f.later = f.later[:last]
		err = next()
	}
	return copied, err
}

// visit puts the copy of one value in its place, and what it holds on the list.
func (f *finder) visit(value any, at *place, put func(any)) error {
	switch value := value.(type) {
	case string:
		put(value)
		f.look(value, at, func(secret string) { put(secret) })
	case []string:
		to := slices.Clone(value)
		put(to)
		for i, text := range value {
			f.look(text, &place{at, strconv.Itoa(i)}, func(secret string) { to[i] = secret })
		}
	case map[string]string:
		to := maps.Clone(value)
		put(to)
		for name, text := range value {
			f.look(text, &place{at, name}, func(secret string) { to[name] = secret })
		}
	case []any:
		return enter(f, value, at, put, func(to []any) {
			for i, one := range value {
				f.enqueue(one, &place{at, strconv.Itoa(i)}, func(copied any) { to[i] = copied })
			}
		}, slices.Clone)
	case map[string]any:
		return enter(f, value, at, put, func(to map[string]any) {
			for name, one := range value {
				f.enqueue(one, &place{at, name}, func(copied any) { to[name] = copied })
			}
		}, maps.Clone)
	default:
		put(value)
	}
	return nil
}

func (f *finder) enqueue(value any, at *place, put func(any)) {
	f.later = append(f.later, func() error { return f.visit(value, at, put) })
}

func (f *finder) look(text string, at *place, put func(secret string)) {
	if _, _, stored := StoredReference(text); stored {
		f.slots = append(f.slots, slot{text, at, put})
	}
}

// enter copies a map or a slice, unless it is known or held by itself.
func enter[T any](f *finder, from T, at *place, put func(any), fill func(to T),
	clone func(T) T) error {
	h := reflect.ValueOf(from)
	id := holder{h.Pointer(), h.Len()}
	if f.open[id] {
		return fmt.Errorf("at %q: %w", at.pointer(), ErrCycle)
	}
	if known, ok := f.copies[id]; ok {
		put(known)
		return nil
	}
	to := clone(from)
	put(to)
	if id.length == 0 {
		return nil
	}
	f.copies[id], f.open[id] = to, true
	f.later = append(f.later, func() error { delete(f.open, id); return nil })
	fill(to)
	return nil
}

// fill puts the secrets in their places, and returns what failed by its place.
func (f *finder) fill(values map[string]string, failed map[string]*Error) map[string]*Error {
	problems := map[string]*Error{}
	for _, s := range f.slots {
		if problem := failed[s.reference]; problem != nil {
			problems[s.at.pointer()] = problem
			continue
		}
		s.put(values[s.reference])
	}
	return problems
}
