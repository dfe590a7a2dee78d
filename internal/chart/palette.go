package chart

import (
	"fmt"
	"strings"
)

// Color is what a line is about. It means the same in every picture.
type Color string

// The colours. Sidecar and Cache are one: what the cache answers is what the sidecar is for. So are
// VaultItself and what had to wait for Vault.
const (
	Sidecar     Color = "sidecar"
	Cache             = Sidecar
	VaultItself Color = "vault"
	VaultProxy  Color = "proxy"
	Stale       Color = "stale"
	Failed      Color = "failed"
	BareGRPC    Color = "bare"
)

// shades are a colour by day and by night.
type shades struct{ light, dark string }

// palette has Okabe and Ito's hues. Their lightness is moved until every colour stands out from
// both backgrounds, and those of one picture stay apart for readers who cannot see red, green or
// blue.
var palette = map[Color]shades{
	Sidecar:     {"#065ba2", "#6cc2f7"},
	VaultItself: {"#e55cc2", "#d657b8"},
	VaultProxy:  {"#0b9573", "#0d8764"},
	Stale:       {"#b6900f", "#f0c050"},
	Failed:      {"#96330f", "#b8481c"},
	BareGRPC:    ink,
}

// The card and the ink are GitHub's, so that a picture looks like a part of its page.
var (
	card   = shades{"#ffffff", "#0d1117"}
	border = shades{"#d1d9e0", "#3d444d"}
	grid   = shades{"#e4e8ec", "#252b33"}
	ink    = shades{"#1f2328", "#f0f6fc"}
	muted  = shades{"#59636e", "#9198a1"}
	shade  = shades{"#eef1f4", "#1b222b"}
)

// Dash tells lines of one colour apart.
type Dash string

// The dashes.
const (
	Solid  Dash = ""
	Dashed Dash = "7 4"
	Dotted Dash = "1.5 4"
)

const fonts = `system-ui,-apple-system,"Segoe UI","Noto Sans",Helvetica,Arial,sans-serif`

// styleSheet has the shades by day, and those by night for readers who ask for them.
func styleSheet() string {
	return fmt.Sprintf("text{font:12px %s;font-variant-numeric:tabular-nums}\n", fonts) +
		".title{font-weight:600;font-size:15px}\n" +
		".line{fill:none;stroke-width:2.25;stroke-linejoin:round;stroke-linecap:round}\n" +
		".leader{fill:none;stroke-width:1}\n.layer{stroke-width:1.5;fill-opacity:.85}\n" +
		rules(func(s shades) string { return s.light }) +
		"@media (prefers-color-scheme:dark){\n" + rules(func(s shades) string {
		return s.dark
	}) + "}\n"
}

func rules(of func(shades) string) string {
	var b strings.Builder
	fmt.Fprintf(&b, ".card{fill:%s;stroke:%s}.grid{stroke:%s}.axis{stroke:%s}\n",
		of(card), of(border), of(grid), of(muted))
	fmt.Fprintf(&b, ".band{fill:%s}.layer{stroke:%s}\n", of(shade), of(card))
	fmt.Fprintf(&b, "text{fill:%s}.title,.name{fill:%s}\n", of(muted), of(ink))
	for _, color := range []Color{Sidecar, VaultItself, VaultProxy, Stale, Failed, BareGRPC} {
		fmt.Fprintf(&b, ".s-%s{stroke:%s}.f-%[1]s{fill:%[2]s}\n", color, of(palette[color]))
	}
	return b.String()
}
