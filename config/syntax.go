package config

import (
	"bytes"
	"errors"
	"fmt"
	"unicode/utf8"

	"github.com/goccy/go-yaml"
	"github.com/goccy/go-yaml/ast"
	"github.com/goccy/go-yaml/lexer"
	"github.com/goccy/go-yaml/parser"
	"github.com/goccy/go-yaml/token"
)

const (
	maxDepth    = 32  // the format itself needs 6; the parser recurses once for every level
	maxKeys     = 100 // in one block mapping; the parser's time grows with the square of it
	maxKeyBytes = 256 // the YAML parser copies a key into the path of everything below it
)

var byteOrderMark = []byte("\xef\xbb\xbf")

// source is the text of one configuration file.
type source struct {
	name      string // for messages
	directory string // relative file names count from here
	text      []byte
}

// root parses the text and returns what is at its top, which should be a mapping; nil for an empty
// file. It returns a Mistake when the text is not YAML that can be read safely.
func (s source) root() (ast.Node, *Mistake) {
	text := bytes.TrimPrefix(s.text, byteOrderMark)
	if len(s.text) > maxFileBytes {
		return nil, s.mistake(nil, fmt.Sprintf("the file is larger than %d bytes", maxFileBytes))
	}
	if !utf8.Valid(text) {
		return nil, s.invalidUTF8(text)
	}
	tokens := lexer.Tokenize(withUnixLines(string(text)))
	if m := s.refuse(tokens); m != nil {
		return nil, m
	}
	file, err := parser.Parse(tokens, 0, parser.AllowDuplicateMapKey())
	if err != nil {
		return nil, s.syntaxMistake(err)
	}
	return s.onlyDocument(file)
}

func (s source) onlyDocument(file *ast.File) (ast.Node, *Mistake) {
	var root ast.Node
	for i, doc := range file.Docs {
		if i > 0 {
			return nil, s.mistake(doc.Start,
				`the file holds several YAML documents: keep one, and remove the "---" before `+
					`the others`)
		}
		root = doc.Body
	}
	return root, nil
}

// refuse finds the parts of YAML that the format does not support. It looks before parsing, because
// some of them make parsing costly.
func (s source) refuse(tokens token.Tokens) *Mistake {
	var open nesting
	for _, tk := range tokens {
		switch tk.Type {
		case token.AnchorType, token.AliasType, token.MergeKeyType:
			return s.mistake(tk,
				`anchors, aliases and merge keys ("&", "*", "<<") are not supported: write the `+
					`value out where it is used; quote a value that begins with such a character`)
		case token.TagType:
			return s.mistake(tk,
				`tags ("!") are not supported: remove the tag; quote a value that begins with "!"`)
		case token.DirectiveType:
			return s.mistake(tk,
				`directives ("%") are not supported: remove the line; quote a value that begins `+
					`with "%"`)
		case token.MappingKeyType:
			return s.mistake(tk,
				`explicit keys ("?") are not supported: write "key: value"; quote a value that `+
					`begins with "?"`)
		}
		depth, keys := open.add(tk)
		if depth > maxDepth {
			return s.mistake(tk, fmt.Sprintf("nested more than %d levels deep", maxDepth))
		}
		if keys > maxKeys {
			return s.mistake(tk, fmt.Sprintf("more than %d keys in one place", maxKeys))
		}
		if tk.Type == token.MappingValueType && tk.Prev != nil && len(tk.Prev.Value) > maxKeyBytes {
			return s.mistake(tk.Prev,
				fmt.Sprintf("a key has more than %d bytes: look for a missing quote or line break",
					maxKeyBytes))
		}
	}
	return nil
}

// nesting tracks how deep a document is nested, and how many keys its block mappings have.
type nesting struct {
	flow  int     // brackets and braces that are open
	block []level // entries and keys that are open, their columns increasing
}

type level struct{ column, keys int }

// add returns the depth at tk and the number of keys of its block mapping.
func (n *nesting) add(tk *token.Token) (depth, keys int) {
	switch tk.Type {
	case token.SequenceStartType, token.MappingStartType:
		n.flow++
	case token.SequenceEndType, token.MappingEndType:
		n.flow = max(0, n.flow-1)
	case token.SequenceEntryType:
		n.open(tk)
	case token.MappingValueType:
		if tk.Prev != nil && n.flow == 0 {
			mapping := n.open(tk.Prev)
			mapping.keys++
			keys = mapping.keys
		}
	}
	return n.flow + len(n.block), keys
}

// open closes what is deeper than tk and returns the level of tk's column.
func (n *nesting) open(tk *token.Token) *level {
	column := tk.Position.Column
	for len(n.block) > 0 && n.block[len(n.block)-1].column > column {
		n.block = n.block[:len(n.block)-1]
	}
	if len(n.block) == 0 || n.block[len(n.block)-1].column < column {
		n.block = append(n.block, level{column: column})
	}
	return &n.block[len(n.block)-1]
}

// syntaxMistakes translates the parser's messages. Its own are not passed on, because some quote
// the text.
var syntaxMistakes = map[string]string{ // #nosec G101 -- messages, no credentials
	"could not find end character of double-quoted text": `a double quote (") is opened and never closed`,
	"could not find end character of single-quoted text": `a single quote (') is opened and never closed`,
	"could not find flow mapping end token '}'":          `"{" is never closed`,
	"could not find flow map content":                    `"{" is never closed`,
	"sequence end token ']' not found":                   `"[" is never closed`,
	"',' or ']' must be specified":                       `"," or "]" is missing before this`,
	"',' or '}' must be specified":                       `"," or "}" is missing before this`,
	"could not find '[' character corresponding to ']'":  `"]" closes nothing`,
	"could not find '{' character corresponding to '}'":  `"}" closes nothing`,
	"expected sequence element, but found ','":           `an entry is missing before ","`,

	"non-map value is specified":                         notKeyValue,
	"unexpected key name":                                notKeyValue,
	"map key definition includes an implicit line break": notKeyValue,
	"found an invalid key for this map":                  "a key must be a plain word",

	"mapping value is not allowed in this context":                       `a second ": " on the line, or a wrong indentation: quote a value that holds ": "`,
	"block sequence entries are not allowed in this context":             `"- " is not allowed here: begin the list on a line of its own`,
	"value is not allowed in this context":                               misplaced,
	"value is not allowed in this context. map key-value is pre-defined": misplaced,
	"unexpected scalar value":                                            misplaced,

	"found character '\t' that cannot start any token":             tabIndentation,
	"tab character cannot use as a map key directly":               tabIndentation,
	"tab character cannot use as a sequence delimiter":             tabIndentation,
	"found a tab character where an indentation space is expected": tabIndentation,

	"'@' is a reserved character": `a value that begins with "@" needs quotes`,
	"'`' is a reserved character": "a value that begins with \"`\" needs quotes",
}

const (
	notKeyValue    = `this is not "key: value": a colon, or the space after it, is missing`
	misplaced      = "this does not belong here: check the indentation and the quotes"
	tabIndentation = "a tab stands where only spaces may: indent with spaces"
)

func (s source) syntaxMistake(err error) *Mistake {
	const fallback = "this is not valid YAML: check the indentation, quotes and brackets here " +
		"and just before"
	var syntax *yaml.SyntaxError
	if !errors.As(err, &syntax) {
		return s.mistake(nil, fallback)
	}
	message, known := syntaxMistakes[syntax.Message]
	if !known {
		message = fallback
	}
	return s.mistake(syntax.Token, message)
}

// mistake is about the whole file when tk is nil.
func (s source) mistake(tk *token.Token, message string) *Mistake {
	m := &Mistake{File: s.name, Message: message}
	if tk != nil && tk.Position != nil {
		m.Line, m.Column = tk.Position.Line, tk.Position.Column
	}
	return m
}

func (s source) invalidUTF8(text []byte) *Mistake {
	line, column := 1, 1
	for len(text) > 0 {
		r, size := utf8.DecodeRune(text)
		if r == utf8.RuneError && size <= 1 {
			break
		}
		column++
		if r == '\n' {
			line, column = line+1, 1
		}
		text = text[size:]
	}
	return &Mistake{File: s.name, Line: line, Column: column,
		Message: "the file is not UTF-8: save it as UTF-8"}
}
