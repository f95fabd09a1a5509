// Command jsongen is a protoc plugin: from the schema of the client protocol it
// writes the JSON codec (muster.json.go) and the reference docs/protocol.md.
package main

import (
	"strings"

	"google.golang.org/protobuf/compiler/protogen"
	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/types/pluginpb"
)

// Numbers of the field options that muster.proto declares.
const (
	optionRawJSON  protowire.Number = 50001
	optionAsObject protowire.Number = 50002
)

func main() {
	protogen.Options{}.Run(func(p *protogen.Plugin) error {
		p.SupportedFeatures = uint64(pluginpb.CodeGeneratorResponse_FEATURE_PROTO3_OPTIONAL)
		for _, f := range p.Files {
			if !f.Generate {
				continue
			}
			if err := writeCodec(p, f); err != nil {
				return err
			}
			writeReference(p, f)
		}
		return nil
	})
}

// jsonName is the field's name on the wire: its json_name where the schema sets
// one, else its name as it stands (snake_case).
func jsonName(f *protogen.Field) string {
	name := string(f.Desc.Name())
	if json := f.Desc.JSONName(); json != camel(name) {
		return json
	}
	return name
}

// camel is the json_name that protoc gives to a field whose schema sets none.
func camel(name string) string {
	var b strings.Builder
	up := false
	for _, r := range name {
		switch {
		case r == '_':
			up = true
			continue
		case up && r >= 'a' && r <= 'z':
			r -= 'a' - 'A'
		}
		up = false
		b.WriteRune(r)
	}
	return b.String()
}

// enumName is the wire's word for an enum value: lower case, without the enum's prefix.
func enumName(e *protogen.Enum, v *protogen.EnumValue) string {
	var prefix strings.Builder
	for i, r := range string(e.Desc.Name()) {
		if i > 0 && r >= 'A' && r <= 'Z' {
			prefix.WriteByte('_')
		}
		prefix.WriteRune(r)
	}
	name := strings.TrimPrefix(string(v.Desc.Name()), strings.ToUpper(prefix.String())+"_")
	return strings.ToLower(name)
}

// option reads a boolean field option from its bytes, so that this plugin needs
// nothing of the package that it generates.
func option(f *protogen.Field, n protowire.Number) bool {
	b := []byte(f.Desc.Options().ProtoReflect().GetUnknown())
	for len(b) > 0 {
		num, typ, size := protowire.ConsumeTag(b)
		if size < 0 {
			return false
		}
		b = b[size:]
		if num == n && typ == protowire.VarintType {
			v, _ := protowire.ConsumeVarint(b)
			return v != 0
		}
		if size = protowire.ConsumeFieldValue(num, typ, b); size < 0 {
			return false
		}
		b = b[size:]
	}
	return false
}

func inOneof(f *protogen.Field) bool {
	return f.Oneof != nil && !f.Oneof.Desc.IsSynthetic()
}

func isMessage(f *protogen.Field) bool { return f.Desc.Kind() == protoreflect.MessageKind }
