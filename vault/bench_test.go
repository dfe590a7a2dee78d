package vault

import (
	"strings"
	"testing"
)

func BenchmarkParseReference(b *testing.B) {
	for name, path := range map[string]string{
		"ascii":   "secret/data/team/service/api_key",
		"unicode": "secret/data/team/dienst/schlüssel",
	} {
		b.Run(name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				if _, err := ParseReference(path, ""); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

func BenchmarkDecideRead(b *testing.B) {
	body := `{"data":{"data":{"api_key":"` + strings.Repeat("x", 256) + `"},"metadata":` +
		someMetadata + `}}`
	b.ReportAllocs()
	for b.Loop() {
		if _, err := readOf(200, body); err != nil {
			b.Fatal(err)
		}
	}
}
