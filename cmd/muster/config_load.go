package main

import (
	"errors"
	"fmt"
	"os"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/go-viper/mapstructure/v2"
	"github.com/knadh/koanf/parsers/yaml"
	"github.com/knadh/koanf/providers/confmap"
	"github.com/knadh/koanf/providers/env/v2"
	"github.com/knadh/koanf/providers/file"
	"github.com/knadh/koanf/providers/posflag"
	"github.com/knadh/koanf/v2"
	"github.com/spf13/pflag"
)

const envPrefix = "MUSTER_"

// setting is one field of Config as its tags declare it.
type setting struct {
	name, def, help string
	secret, hidden  bool
	index           int
	typ             reflect.Type
}

func settings() []setting {
	t := reflect.TypeFor[Config]()
	list := make([]setting, 0, t.NumField())
	for i := range t.NumField() {
		f := t.Field(i)
		list = append(list, setting{
			name: f.Tag.Get("koanf"), def: f.Tag.Get("default"), help: f.Tag.Get("help"),
			secret: f.Tag.Get("secret") == "true", hidden: f.Tag.Get("hidden") == "true", index: i, typ: f.Type,
		})
	}
	return list
}

// addFlags declares flags for the settings named, or for all.
func addFlags(flags *pflag.FlagSet, names ...string) {
	flags.String("config", "", "YAML file with settings")
	for _, s := range settings() {
		if len(names) > 0 && !slices.Contains(names, s.name) {
			continue
		}
		switch s.typ.Kind() {
		case reflect.Bool:
			flags.Bool(s.name, false, s.help)
		case reflect.Int:
			def, _ := strconv.Atoi(s.def)
			flags.Int(s.name, def, s.help)
		case reflect.Float64:
			def, _ := strconv.ParseFloat(s.def, 64)
			flags.Float64(s.name, def, s.help)
		case reflect.Int64:
			def, _ := time.ParseDuration(s.def)
			flags.Duration(s.name, def, s.help)
		case reflect.Slice:
			flags.StringSlice(s.name, splitList(s.def), s.help)
		default:
			flags.String(s.name, s.def, s.help)
		}
		if s.hidden {
			_ = flags.MarkHidden(s.name)
		}
	}
}

// sources tells for each setting where its value came from.
type sources map[string]string

// loadConfig merges defaults, the YAML file, environ and the flags that were set.
// Every error is the user's.
func loadConfig(flags *pflag.FlagSet, environ []string) (Config, sources, error) {
	known := map[string]setting{}
	for _, s := range settings() {
		known[s.name] = s
	}
	from := sources{}
	all := koanf.New(".")
	add := func(layer *koanf.Koanf, source func(key string) string) error {
		for _, key := range layer.Keys() {
			if _, ok := known[key]; !ok {
				return fmt.Errorf("%s: no such setting; see `muster serve --help`", source(key))
			}
			from[key] = source(key)
		}
		return all.Merge(layer)
	}

	defaults := map[string]any{}
	for _, s := range known {
		defaults[s.name] = s.def
	}
	layer := koanf.New(".")
	_ = layer.Load(confmap.Provider(defaults, ""), nil)
	if err := add(layer, func(string) string { return "default" }); err != nil {
		return Config{}, nil, err
	}
	if path := configPath(flags, environ); path != "" {
		layer = koanf.New(".")
		if err := layer.Load(file.Provider(path), yaml.Parser()); err != nil {
			return Config{}, nil, fmt.Errorf("cannot read --config %s: %w", path, err)
		}
		if err := add(layer, func(key string) string { return path + ": " + key }); err != nil {
			return Config{}, nil, err
		}
	}
	layer = koanf.New(".")
	if err := layer.Load(envLayer(environ), nil); err != nil {
		return Config{}, nil, err
	}
	if err := add(layer, envName); err != nil {
		return Config{}, nil, err
	}
	layer = koanf.New(".")
	changed := func(f *pflag.Flag) (string, any) {
		if _, ok := known[f.Name]; !ok || !f.Changed {
			return "", nil
		}
		return f.Name, posflag.FlagVal(flags, f)
	}
	if err := layer.Load(posflag.ProviderWithFlag(flags, ".", nil, changed), nil); err != nil {
		return Config{}, nil, err
	}
	if err := add(layer, func(key string) string { return "--" + key }); err != nil {
		return Config{}, nil, err
	}
	cfg, err := decode(all, from)
	return cfg, from, err
}

func configPath(flags *pflag.FlagSet, environ []string) string {
	if path, err := flags.GetString("config"); err == nil && path != "" {
		return path
	}
	for _, kv := range environ {
		if path, ok := strings.CutPrefix(kv, envPrefix+"CONFIG="); ok {
			return path
		}
	}
	return ""
}

func envName(key string) string {
	return envPrefix + strings.ToUpper(strings.ReplaceAll(key, "-", "_"))
}

func envLayer(environ []string) *env.Env {
	return env.Provider(".", env.Opt{
		Prefix:      envPrefix,
		EnvironFunc: func() []string { return environ },
		TransformFunc: func(key, value string) (string, any) {
			if key == envPrefix+"CONFIG" {
				return "", nil
			}
			key = strings.ToLower(strings.TrimPrefix(key, envPrefix))
			return strings.ReplaceAll(key, "_", "-"), value
		},
	})
}

// decode fills a Config setting by setting, so that an error names the culprit.
func decode(all *koanf.Koanf, from sources) (Config, error) {
	var cfg Config
	v := reflect.ValueOf(&cfg).Elem()
	for _, s := range settings() {
		decoder, err := mapstructure.NewDecoder(&mapstructure.DecoderConfig{
			Result:           v.Field(s.index).Addr().Interface(),
			WeaklyTypedInput: true,
			DecodeHook:       decodeHook,
		})
		if err != nil {
			return Config{}, err
		}
		if err := decoder.Decode(all.Get(s.name)); err != nil {
			var last error = err
			for e := err; e != nil; e = errors.Unwrap(e) {
				last = e
			}
			return Config{}, fmt.Errorf("%s: %q is not a valid value: %s", from[s.name], fmt.Sprint(all.Get(s.name)), oneLine(last.Error()))
		}
	}
	return cfg, nil
}

// decodeHook reads durations and lists; a bare number is not a duration.
func decodeHook(from, to reflect.Type, data any) (any, error) {
	text, isText := data.(string)
	switch {
	case to == reflect.TypeFor[time.Duration]() && isText:
		d, err := time.ParseDuration(text)
		if err != nil {
			return nil, errors.New("write a duration such as 20s or 5m")
		}
		return d, nil
	case to == reflect.TypeFor[time.Duration]() && from != to:
		return nil, errors.New("write a duration such as 20s or 5m")
	case to.Kind() == reflect.Slice && isText:
		return splitList(text), nil
	case (to.Kind() == reflect.Int || to.Kind() == reflect.Float64) && isText:
		n, err := strconv.ParseFloat(strings.TrimSpace(text), 64)
		if err != nil {
			return nil, errors.New("write a number")
		}
		if to.Kind() == reflect.Int && n != float64(int(n)) {
			return nil, errors.New("write a whole number")
		}
		return n, nil
	case to.Kind() == reflect.Bool && isText:
		b, err := strconv.ParseBool(text)
		if err != nil {
			return nil, errors.New("write true or false")
		}
		return b, nil
	}
	return data, nil
}

func splitList(text string) []string {
	var list []string
	for part := range strings.SplitSeq(text, ",") {
		if part = strings.TrimSpace(part); part != "" {
			list = append(list, part)
		}
	}
	return list
}

func oneLine(text string) string { return strings.Join(strings.Fields(text), " ") }

// environment is what loadConfig reads; tests replace it.
var environment = os.Environ
