package main

import (
	_ "embed"

	"google.golang.org/protobuf/compiler/protogen"
)

func writeReference(p *protogen.Plugin, f *protogen.File) {}
