package devvault

import (
	"encoding/json"
	"fmt"
	"strconv"
	"strings"
	"time"
)

// fields are the parameters of a request. Like Vault it takes a number, a duration or a list in any
// of the forms that people write.
type fields map[string]any

func (f fields) has(name string) bool { return f[name] != nil }

// text returns a string parameter; "" when it is absent.
func (f fields) text(name string) string {
	if s, ok := f[name].(string); ok {
		return s
	}
	return ""
}

// setDuration sets target when the parameter is there: "90s", "90" and 90 are all 90 seconds.
func (f fields) setDuration(name string, target *time.Duration) error {
	if !f.has(name) {
		return nil
	}
	d, err := parseDuration(fmt.Sprint(f[name]))
	if err != nil {
		return f.cannotConvert(name, err)
	}
	*target = d
	return nil
}

func (f fields) setInt(name string, target *int) error {
	if !f.has(name) {
		return nil
	}
	n, err := strconv.Atoi(fmt.Sprint(f[name]))
	if err != nil {
		return f.cannotConvert(name, err)
	}
	*target = n
	return nil
}

func (f fields) setBool(name string, target *bool) error {
	if !f.has(name) {
		return nil
	}
	b, err := strconv.ParseBool(fmt.Sprint(f[name]))
	if err != nil {
		return f.cannotConvert(name, err)
	}
	*target = b
	return nil
}

// setList sets target when the parameter is there: a JSON array or a comma-separated string.
func (f fields) setList(name string, target *[]string) {
	switch value := f[name].(type) {
	case string:
		*target = splitList(value)
	case []any:
		*target = []string{}
		for _, element := range value {
			*target = append(*target, fmt.Sprint(element))
		}
	}
}

// versions returns the parameter "versions", an array of version numbers.
func (f fields) versions() ([]int, error) {
	var texts []string
	f.setList("versions", &texts)
	var numbers []int
	for _, text := range texts {
		n, err := strconv.Atoi(text)
		if err != nil {
			return nil, f.cannotConvert("versions", err)
		}
		numbers = append(numbers, n)
	}
	if len(numbers) == 0 {
		return nil, badRequest("no version number provided")
	}
	return numbers, nil
}

// strings returns a parameter that maps strings to strings, given as an object or as JSON text.
func (f fields) strings(name string) map[string]string {
	object, ok := f[name].(map[string]any)
	if !ok {
		json.Unmarshal([]byte(f.text(name)), &object) //nolint:errcheck // no object, no strings
	}
	var out map[string]string
	for key, value := range object {
		if out == nil {
			out = make(map[string]string)
		}
		out[key] = fmt.Sprint(value)
	}
	return out
}

func (f fields) cannotConvert(name string, err error) error {
	return badRequest("error converting input for field %q: %v", name, err)
}

func splitList(text string) []string {
	list := []string{}
	for part := range strings.SplitSeq(text, ",") {
		if part = strings.TrimSpace(part); part != "" {
			list = append(list, part)
		}
	}
	return list
}

func parseDuration(text string) (time.Duration, error) {
	if n, err := strconv.ParseInt(text, 10, 64); err == nil {
		return time.Duration(n) * time.Second, nil
	}
	return time.ParseDuration(text)
}

// seconds is the unit of every duration in Vault's answers.
func seconds(d time.Duration) int64 { return int64(d / time.Second) }

// timestamp formats a time as Vault does; "" for the zero time.
func timestamp(t time.Time) string {
	if t.IsZero() {
		return ""
	}
	return t.UTC().Format(time.RFC3339Nano)
}
