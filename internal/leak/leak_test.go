package leak

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"io"
	"math/rand/v2"
	"net/url"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

// scan returns what is found in a text that comes in pieces of a size.
func scan(r *Register, text []byte, size int) []Finding {
	var found []Finding
	scanner := r.NewScanner()
	for piece := range slices.Chunk(text, size) {
		scanner.Scan(piece, func(f Finding) { found = append(found, f) })
	}
	return found
}

// knowing makes a Register to which the values were given as those of keys v0, v1 and so on.
func knowing(values ...string) *Register {
	r := NewRegister()
	for i, v := range values {
		r.Add(v, Origin{Connection: "prod", Path: "secret/data/app", Key: fmt.Sprintf("v%d", i)})
	}
	return r
}

func jsonOf(text string) string {
	escaped, err := json.Marshal(text)
	if err != nil {
		panic(err)
	}
	return string(escaped[1 : len(escaped)-1])
}

// asciiJSON is what encoders write that escape all that they may.
func asciiJSON(text string) string {
	var b strings.Builder
	for _, r := range text {
		if r < 0x10000 {
			fmt.Fprintf(&b, `\u%04X`, r)
		} else {
			fmt.Fprintf(&b, `\u%04x\u%04x`, 0xd800+(r-0x10000)>>10, 0xdc00+(r-0x10000)&0x3ff)
		}
	}
	return b.String()
}

func percentAll(text string) string {
	var b strings.Builder
	for i := range len(text) {
		fmt.Fprintf(&b, "%%%02x", text[i])
	}
	return b.String()
}

// spellings are the ways in which a value stands in a log.
var spellings = map[string]func(string) string{
	"plain":          func(v string) string { return v },
	"JSON":           jsonOf,
	"JSON in \\u":    asciiJSON,
	"JSON, PHP's":    func(v string) string { return strings.ReplaceAll(jsonOf(v), "/", `\/`) },
	"a URL's query":  url.QueryEscape,
	"a URL's path":   url.PathEscape,
	"percent in all": percentAll,
	"base64":         func(v string) string { return base64.StdEncoding.EncodeToString([]byte(v)) },
	"base64, second": func(v string) string {
		return base64.StdEncoding.EncodeToString([]byte("u" + v + "x"))
	},
	"base64, third": func(v string) string {
		return base64.RawStdEncoding.EncodeToString([]byte("u:" + v + "xy"))
	},
	"base64 of URLs": func(v string) string {
		return base64.URLEncoding.EncodeToString([]byte("u" + v))
	},
	"base64, raw": func(v string) string {
		return base64.RawURLEncoding.EncodeToString([]byte("ab" + v))
	},
	"base64 in a query": func(v string) string {
		return url.QueryEscape(base64.StdEncoding.EncodeToString([]byte(v)))
	},
	"base64 in PHP's JSON": func(v string) string {
		return strings.ReplaceAll(base64.StdEncoding.EncodeToString([]byte(v)), "/", `\/`)
	},
}

var samples = map[string]string{
	"16 bytes":         "s3cr3t-token_0+/",
	"17 bytes":         "Zm9v?>~\xc3\xbf0123456z",
	"18 bytes":         "??>>~~??>>~~ab cd+",
	"a space":          "correct horse battery staple",
	"escapes of all":   `a%41\u0041"+<&>/` + "\n\t end",
	"ends in escapes":  "0123456789abcdef%4\\u00",
	"runes":            "пароль-😀-Schlüssel",
	"base64 itself":    "MIIEvQIBADANBgkqhkiG9w0BAQ==",
	"a document":       `{"user": "app", "password": "a/b\"c"}`,
	"as a certificate": "-----BEGIN KEY-----\n" + strings.Repeat("QUJDREVGabc/+xyz0\n", 60) + "---",
}

func TestAValueIsFoundHoweverItIsSpelled(t *testing.T) {
	for sample, value := range samples {
		for spelling, spell := range spellings {
			t.Run(sample+", "+spelling, func(t *testing.T) {
				r := knowing("another value, not in the text", value)
				for _, around := range []string{"", "x", `key="`, `\" `, "% ", `  %4\u12 `, "+-", "/"} {
					spelled := spell(value)
					if isBase64 := strings.Contains(spelling, "base64"); isBase64 && around != "" {
						around += " " // its neighbours would be part of it
					}
					text := around + spelled + " " + around
					found := scan(r, []byte(text), len(text))
					if len(found) == 0 {
						t.Fatalf("not found in %q", text)
					}
					f := found[0]
					if f.Origins[0].Key != "v1" {
						t.Errorf("it is said to be %v", f.Origins)
					}
					begin, end := int64(len(around)), int64(len(around)+len(spelled))
					if f.Offset < begin || f.Offset > begin+4 || f.Offset+f.Length > end ||
						f.Offset+f.Length < end-7 {
						t.Errorf("it is said to be at %d+%d of %q", f.Offset, f.Length, text)
					}
					if len(found) != 1 {
						t.Errorf("it is told %d times: %v", len(found), found)
					}
				}
			})
		}
	}
}

func TestAPlainValueHasItsExactPlace(t *testing.T) {
	value := samples["a space"]
	found := scan(knowing(value), []byte("0123"+value+"4567"+value), 5)
	want := []int64{4, 4 + int64(len(value)) + 4}
	if len(found) != 2 || found[0].Offset != want[0] || found[1].Offset != want[1] ||
		found[0].Length != int64(len(value)) {
		t.Errorf("found %v", found)
	}
}

func TestThePiecesInWhichATextComesMakeNoDifference(t *testing.T) {
	var all []string
	var text bytes.Buffer
	for _, value := range samples {
		all = append(all, value)
		for _, spell := range spellings {
			text.WriteString(spell(value) + " ")
		}
	}
	r := knowing(all...)
	whole := scan(r, text.Bytes(), text.Len())
	if want := len(samples) * len(spellings); len(whole) < want {
		t.Errorf("%d findings, want %d at least", len(whole), want)
	}
	for _, size := range []int{1, 2, 3, 7, 16, 17, 1000} {
		same := func(a, b Finding) bool { return a.Offset == b.Offset && a.Length == b.Length }
		if got := scan(r, text.Bytes(), size); !slices.EqualFunc(got, whole, same) {
			t.Errorf("in pieces of %d: %d findings, want %d", size, len(got), len(whole))
		}
	}
}

func TestWhatIsNotTheWholeValueIsNotFound(t *testing.T) {
	for sample, value := range samples {
		if sample == "as a certificate" {
			value = value[:200]
		}
		r := knowing(value)
		for _, spell := range spellings {
			for n := range len(value) {
				// All of it but its end, its beginning, and with one byte of another kind.
				changed := []byte(value)
				changed[n] ^= 0x15
				texts := []string{value[:n], value[n+1:], string(changed)}
				for _, text := range texts[n%2:] {
					spelled := spell(text)
					if strings.Contains(strings.ToValidUTF8(text, "?"), strings.TrimSpace(value)) {
						continue
					}
					if found := scan(r, []byte(spelled+" "), 64); len(found) != 0 {
						t.Errorf("%s: found at byte %d in %q", sample, n, spelled)
					}
				}
			}
		}
	}
}

func TestWhatIsShortOrOfFewBytesIsNotLookedFor(t *testing.T) {
	for _, value := range []string{
		"", "0123456789abcde", "   0123456789abcde \n", "aaaaaaaaaaaaaaaaaaaaaaaa",
		"abababababababababcd",
	} {
		if found := scan(knowing(value), []byte("x"+value+"x"), 64); len(found) != 0 {
			t.Errorf("%q is found", value)
		}
	}
	r := knowing(" 0123456789abcdef\n")
	if found := scan(r, []byte("<0123456789abcdef>"), 64); len(found) != 1 {
		t.Error("a value is not found without the blank space around it")
	}
}

func TestValuesInEachOtherAreAllFound(t *testing.T) {
	inner := "inner-0123456789"
	outer := inner + "-and-more-of-it"
	found := scan(knowing(outer, inner, "x"+inner), []byte("x"+outer), 64)
	if len(found) != 3 {
		t.Errorf("found %v", found)
	}
}

// Certificates begin alike, and a log may print them all.
func TestManyValuesThatBeginAlikeAreToldApart(t *testing.T) {
	rng := rand.New(rand.NewPCG(1, 2)) // #nosec G404 -- a test
	var values []string
	var text strings.Builder
	for range 300 {
		value := "-----BEGIN CERTIFICATE-----\n" + base64Text(rng, 900) + "\n-----END CERTIFICATE-----"
		values = append(values, value)
		text.WriteString(value + "\n")
	}
	found := scan(knowing(values...), []byte(text.String()), 4096)
	if len(found) != len(values) {
		t.Fatalf("%d found, want %d", len(found), len(values))
	}
	for i, f := range found {
		if f.Origins[0].Key != fmt.Sprintf("v%d", i) {
			t.Fatalf("the one at %d is said to be %s", i, f.Origins[0].Key)
		}
	}
}

func base64Text(rng *rand.Rand, n int) string {
	raw := make([]byte, n)
	for i := range raw {
		raw[i] = byte(rng.Uint32())
	}
	return base64.StdEncoding.EncodeToString(raw)
}

func TestReferencesToOneValueAreAllTold(t *testing.T) {
	r := NewRegister()
	const value = "the same value everywhere"
	for i := range 3 * maxOrigins {
		r.Add(value, Origin{Connection: "prod", Key: fmt.Sprint(i)})
		r.Add(value, Origin{Connection: "prod", Key: fmt.Sprint(i)})
	}
	found := scan(r, []byte(value), 64)
	if len(found) != 1 || len(found[0].Origins) != maxOrigins {
		t.Fatalf("found %v", found)
	}
	if newest := found[0].Origins[maxOrigins-1].Key; newest != fmt.Sprint(3*maxOrigins-1) {
		t.Errorf("the newest is %s", newest)
	}
}

func TestAValueIsForgottenAfterADayAndNoSoonerThanHalfOfIt(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const old, used = "the value of yesterday", "a value that is in use"
		r := knowing(old, used)
		tick := func() {
			time.Sleep(MaxAge / 2)
			r.Add(used, Origin{Connection: "prod"})
		}
		knows := func(value string) bool { return len(scan(r, []byte(value), 64)) > 0 }
		time.Sleep(MaxAge/2 - time.Minute)
		if !knows(old) {
			t.Error("it is forgotten too soon")
		}
		tick()
		tick()
		if knows(old) {
			t.Error("it is still known")
		}
		for range 4 {
			tick()
			if !knows(used) {
				t.Error("what is in use is forgotten")
			}
		}
		time.Sleep(2 * MaxAge)
		if knows(used) {
			t.Error("nothing is given out any more, and values are known")
		}
	})
}

func TestTheMemoryOfWhatIsKnownIsBounded(t *testing.T) {
	r := NewRegister()
	last := ""
	for i := range 3 * maxBytes / valueBytes {
		last = fmt.Sprintf("value number %d of many", i)
		r.Add(last, Origin{Connection: "prod", Path: "secret/data/app", Key: "k"})
	}
	if known := len(r.young.values) + len(r.old.values); known > maxBytes/valueBytes {
		t.Errorf("%d values are known", known)
	}
	if len(scan(r, []byte(last), 64)) != 1 {
		t.Error("the newest is not known")
	}
}

// corpus is a log with values in it, made as it is read, alike in every run.
type corpus struct {
	rng    *rand.Rand
	values []string
	left   int // bytes of the log that are to come
	made   int64
	hidden []int64 // where each value ends, in order
	line   []byte
}

func (c *corpus) Read(p []byte) (int, error) {
	if len(c.line) == 0 {
		if c.left <= 0 {
			return 0, io.EOF
		}
		c.next()
	}
	n := copy(p, c.line)
	c.line = c.line[n:]
	return n, nil
}

// next makes a line: texts of a log, hashes, base64 and escapes that are no value, and now and then
// a value in one of its spellings.
func (c *corpus) next() {
	var b bytes.Buffer
	fmt.Fprintf(&b, `{"time":"2026-11-26T02:%02d:%02d.%06dZ","msg":"step \"%d\" of flow\n",`,
		c.rng.IntN(60), c.rng.IntN(60), c.rng.IntN(1e6), c.rng.IntN(1000))
	fmt.Fprintf(&b, `"trace":"%016x%016x","url":"/v1/a%%20b?q=%s",`, c.rng.Uint64(), c.rng.Uint64(),
		url.QueryEscape(fmt.Sprintf("%x c+d/%x", c.rng.Uint32(), c.rng.Uint32())))
	if c.rng.IntN(20) == 0 { // as close to a value as can be
		value := c.values[c.rng.IntN(len(c.values))]
		fmt.Fprintf(&b, `"near":"%s",`, value[:len(value)-1]+"\x01")
	}
	if c.rng.IntN(200) == 0 {
		spell := c.rng.IntN(len(ordered))
		fmt.Fprintf(&b, `"v":"%s`, spellings[ordered[spell]](c.values[c.rng.IntN(len(c.values))]))
		c.hidden = append(c.hidden, c.made+int64(b.Len()))
		b.WriteString(`",`)
	}
	fmt.Fprintf(&b, `"body":"%s"}`+"\n", base64Text(c.rng, c.rng.IntN(300)))
	c.line = b.Bytes()
	c.made += int64(b.Len())
	c.left -= b.Len()
}

var ordered = func() (names []string) {
	for name := range spellings {
		names = append(names, name)
	}
	slices.Sort(names)
	return names
}()

func newCorpus(size int) (*corpus, *Register) {
	c := &corpus{rng: rand.New(rand.NewPCG(15, 26)), left: size} // #nosec G404 -- a test
	for i := range 5000 {
		value := base64Text(c.rng, 12+c.rng.IntN(60))
		if i%3 == 0 {
			value = fmt.Sprintf("postgres://app:%x@db.example/app?x=%d&y=ü", c.rng.Uint64(), i)
		}
		c.values = append(c.values, value)
	}
	return c, knowing(c.values...)
}

func TestInAHundredMegabytesOfLogEveryValueIsFoundAndNothingElse(t *testing.T) {
	c, r := newCorpus(corpusBytes)
	var ends []int64
	scanner, piece := r.NewScanner(), make([]byte, 64<<10)
	for {
		n, err := c.Read(piece)
		scanner.Scan(piece[:n], func(f Finding) { ends = append(ends, f.Offset+f.Length) })
		if err != nil {
			break
		}
	}
	found := 0
	for _, hidden := range c.hidden {
		// Of base64 the last characters are its neighbours' too, and it may be padded and escaped.
		if found == len(ends) || ends[found] < hidden-8 || hidden < ends[found] {
			t.Fatalf("the value that ends at %d is not the next that is found: %v", hidden,
				ends[max(0, found-1):min(found+3, len(ends))])
		}
		found++
	}
	if found != len(ends) {
		t.Errorf("%d values are hidden, %d found", found, len(ends))
	}
	t.Logf("%d values in %d bytes", found, c.made)
}

func BenchmarkScan(b *testing.B) {
	c, r := newCorpus(16 << 20)
	text, err := io.ReadAll(c)
	if err != nil {
		b.Fatal(err)
	}
	b.SetBytes(int64(len(text)))
	for b.Loop() {
		scan(r, text, 64<<10)
	}
}

func BenchmarkAddOfAKnownValue(b *testing.B) {
	value := strings.Repeat("0123456789abcdef", 4)
	from := Origin{Connection: "prod", Path: "secret/data/a"}
	r := NewRegister()
	for b.Loop() {
		r.Add(value, from)
	}
}
