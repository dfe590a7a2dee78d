package client

import (
	"context"
	"errors"
	"fmt"
	"reflect"
	"strconv"
	"strings"
)

// ErrCycle is the error of ResolveObject for a value that holds itself.
var ErrCycle = errors.New("the value holds itself: resolve its parts one by one")

// KeepFailed makes ResolveObject leave failed references in the value, and return it together with
// the *BatchError that names them.
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
	found := &finder{places: map[string][]string{}, within: map[uintptr]bool{}}
	if err := found.walk(value); err != nil {
		return nil, err
	}
	references := make(map[string]string, len(found.places))
	for reference := range found.places {
		references[reference] = reference
	}
	values, failed, err := c.all(ctx, o, references)
	if err != nil {
		return nil, err
	}
	if len(failed) == 0 {
		return replace(value, values), nil
	}
	problems := &BatchError{Failed: map[string]*Error{}}
	for reference, problem := range failed {
		for _, place := range found.places[reference] {
			problems.Failed[place] = problem
		}
	}
	if o.keep {
		return replace(value, values), problems
	}
	return nil, problems
}

// finder collects the stored references of a value.
type finder struct {
	places map[string][]string // by reference: where it stands, as JSON pointers
	path   []string            // to what is being looked at
	within map[uintptr]bool    // the maps and slices that hold it
}

func (f *finder) walk(value any) error {
	switch value := value.(type) {
	case string:
		return f.look(value)
	case map[string]any:
		return f.inside(value, func() error { return eachOf(f, value, f.walk) })
	case []any:
		return f.inside(value, func() error { return eachIn(f, value, f.walk) })
	case map[string]string:
		return eachOf(f, value, f.look)
	case []string:
		return eachIn(f, value, f.look)
	}
	return nil
}

// look records a stored reference. It never fails.
func (f *finder) look(text string) error {
	if _, _, stored := StoredReference(text); stored {
		f.places[text] = append(f.places[text], f.pointer())
	}
	return nil
}

// pointer is where the finder is, as a JSON pointer.
func (f *finder) pointer() string {
	var pointer strings.Builder
	for _, name := range f.path {
		pointer.WriteByte('/')
		pointer.WriteString(pointerEscapes.Replace(name))
	}
	return pointer.String()
}

var pointerEscapes = strings.NewReplacer("~", "~0", "/", "~1")

func eachOf[T any](f *finder, values map[string]T, walk func(T) error) error {
	for name, value := range values {
		if err := at(f, name, value, walk); err != nil {
			return err
		}
	}
	return nil
}

func eachIn[T any](f *finder, values []T, walk func(T) error) error {
	for i, value := range values {
		if err := at(f, strconv.Itoa(i), value, walk); err != nil {
			return err
		}
	}
	return nil
}

func at[T any](f *finder, name string, value T, walk func(T) error) error {
	f.path = append(f.path, name)
	err := walk(value)
	f.path = f.path[:len(f.path)-1]
	return err
}

// inside walks a map or a slice, unless it contains itself.
func (f *finder) inside(holder any, walk func() error) error {
	h := reflect.ValueOf(holder)
	if h.Len() == 0 {
		return nil
	}
	id := h.Pointer()
	if f.within[id] {
		return fmt.Errorf("at %q: %w", f.pointer(), ErrCycle)
	}
	f.within[id] = true
	defer delete(f.within, id)
	return walk()
}

// replace returns a copy of a value with the secrets in place of their references.
func replace(value any, secrets map[string]string) any {
	switch value := value.(type) {
	case string:
		return replaceText(value, secrets)
	case map[string]any:
		return mapped(value, func(one any) any { return replace(one, secrets) })
	case map[string]string:
		return mapped(value, func(one string) string { return replaceText(one, secrets) })
	case []any:
		return listed(value, func(one any) any { return replace(one, secrets) })
	case []string:
		return listed(value, func(one string) string { return replaceText(one, secrets) })
	}
	return value
}

func replaceText(text string, secrets map[string]string) string {
	if secret, ok := secrets[text]; ok {
		return secret
	}
	return text
}

func mapped[T any](from map[string]T, change func(T) T) map[string]T {
	if from == nil {
		return nil
	}
	to := make(map[string]T, len(from))
	for name, one := range from {
		to[name] = change(one)
	}
	return to
}

func listed[T any](from []T, change func(T) T) []T {
	if from == nil {
		return nil
	}
	to := make([]T, len(from))
	for i, one := range from {
		to[i] = change(one)
	}
	return to
}
