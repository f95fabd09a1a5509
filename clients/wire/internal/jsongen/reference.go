package main

import (
	_ "embed"
	"strings"

	"google.golang.org/protobuf/compiler/protogen"
	"google.golang.org/protobuf/reflect/protoreflect"
)

//go:embed head.md
var head string

// reference renders docs/protocol.md from the schema's comments: the methods with their
// replies, the pushes, then the objects and words that they refer to.
type reference struct {
	g        *protogen.GeneratedFile
	messages map[string]*protogen.Message
	objects  []*protogen.Message // referred to, in order of first mention
	words    []*protogen.Enum
	listed   map[string]bool
}

func writeReference(p *protogen.Plugin, f *protogen.File) {
	r := &reference{
		g:        p.NewGeneratedFile("muster/docs/protocol.md", ""),
		messages: map[string]*protogen.Message{},
		listed:   map[string]bool{},
	}
	for _, m := range f.Messages {
		r.messages[m.GoIdent.GoName] = m
	}
	r.line(strings.TrimRight(head, "\n"))
	r.line("\n## Methods")
	replies := map[string]*protogen.Message{}
	for _, m := range r.messages["Reply"].Fields {
		replies[jsonName(m)] = m.Message
	}
	for _, m := range r.messages["Command"].Fields {
		if !inOneof(m) {
			continue
		}
		r.line("\n### `", jsonName(m), "`\n")
		r.shape(m.Message)
		if reply := replies[jsonName(m)]; reply != nil && len(reply.Fields) > 0 {
			r.line("\nReply:\n")
			r.shape(reply)
		} else {
			r.line("\nReply: `{}`.")
		}
	}
	r.line("\n## Pushes")
	for _, m := range r.messages["Push"].Fields {
		r.line("\n### push `", jsonName(m), "`\n")
		what := r.typ(m)
		if r.listed[m.Message.GoIdent.GoName] && strings.HasSuffix(m.Message.GoIdent.GoName, "Push") {
			r.objects = r.objects[:len(r.objects)-1]
			if m.Desc.IsList() {
				r.line("A list of objects.\n")
			}
			r.shape(m.Message)
			continue
		}
		r.line(strings.ToUpper(what[:1]), what[1:], ".")
	}
	r.line("\n## Objects")
	r.typ(r.messages["Reply"].Fields[1]) // the error
	for i := 0; i < len(r.objects); i++ {
		r.line("\n### ", r.objects[i].GoIdent.GoName, " object\n")
		r.shape(r.objects[i])
	}
	r.line("\n## Words")
	for _, e := range r.words {
		r.enum(e)
	}
}

func (r *reference) line(parts ...any) { r.g.P(parts...) }

// shape renders a message's comment and its table of fields.
func (r *reference) shape(m *protogen.Message) {
	text := prose(m.Comments.Leading)
	if text != "" {
		r.line(text)
	}
	if len(m.Fields) == 0 {
		return
	}
	if text != "" {
		r.line()
	}
	r.line("| field | type | |")
	r.line("|---|---|---|")
	for _, f := range m.Fields {
		note := prose(f.Comments.Leading)
		if note == "" {
			note = prose(f.Comments.Trailing)
		}
		r.line("| `", jsonName(f), "` | ", r.typ(f), " | ", note, " |")
	}
}

// typ describes a field's type and remembers what it refers to.
func (r *reference) typ(f *protogen.Field) string {
	var name string
	switch f.Desc.Kind() {
	case protoreflect.StringKind:
		name = "string"
		if option(f, optionRawJSON) {
			name = "any JSON"
		}
	case protoreflect.BoolKind:
		name = "bool"
	case protoreflect.EnumKind:
		e := f.Enum.GoIdent.GoName
		r.word(f.Enum)
		name = "[" + e + "](#" + strings.ToLower(e) + "-words)"
	case protoreflect.MessageKind:
		if option(f, optionAsObject) {
			for _, inner := range f.Message.Fields {
				r.word(inner.Enum)
			}
			return "object: [class](#deviceclass-words) → [state](#state-words)"
		}
		m := f.Message.GoIdent.GoName
		if !r.listed[m] {
			r.listed[m] = true
			r.objects = append(r.objects, f.Message)
		}
		name = "[" + m + "](#" + strings.ToLower(m) + "-object)"
	default:
		name = "number"
	}
	if f.Desc.IsList() {
		return "list of " + name
	}
	return name
}

func (r *reference) word(e *protogen.Enum) {
	if name := e.GoIdent.GoName; !r.listed[name] {
		r.listed[name] = true
		r.words = append(r.words, e)
	}
}

func (r *reference) enum(e *protogen.Enum) {
	r.line("\n### ", e.GoIdent.GoName, " words\n")
	if text := prose(e.Comments.Leading); text != "" {
		r.line(text, "\n")
	}
	var words []string
	for _, v := range e.Values[1:] {
		word := "`" + enumName(e, v) + "`"
		if note := prose(v.Comments.Trailing); note != "" {
			word += " (" + note + ")"
		}
		words = append(words, word)
	}
	r.line(strings.Join(words, " · "))
}

// prose joins a comment's lines.
func prose(c protogen.Comments) string {
	return strings.Join(strings.Fields(string(c)), " ")
}
