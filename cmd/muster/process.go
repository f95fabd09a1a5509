package main

import (
	"fmt"
	"io"
	"log/slog"
	"math"
	"os"
	"runtime"
	"runtime/debug"
	"strconv"
	"strings"
)

var processors = runtime.GOMAXPROCS(0)

// applyRuntime sets the garbage collector's goals, and one thread more than there are
// processors: one waits for the disk most of the time.
func applyRuntime(cfg Config) {
	if os.Getenv("GOMAXPROCS") == "" {
		runtime.GOMAXPROCS(processors + 1)
	}
	debug.SetGCPercent(cfg.GOGC)
	if limit, _ := parseBytes("gomemlimit", cfg.GOMEMLIMIT); limit > 0 {
		debug.SetMemoryLimit(limit)
	}
}

func newLogger(cfg Config, w io.Writer) *slog.Logger {
	level, _ := parseLevel(cfg.LogLevel)
	options := &slog.HandlerOptions{Level: level}
	if cfg.LogFormat == "json" {
		return slog.New(slog.NewJSONHandler(w, options))
	}
	return slog.New(slog.NewTextHandler(w, options))
}

func parseLevel(text string) (slog.Level, error) {
	var level slog.Level
	if err := level.UnmarshalText([]byte(text)); err != nil {
		return 0, fmt.Errorf("log-level: %q is unknown; write debug, info, warn or error", text)
	}
	return level, nil
}

// parseBytes reads a size such as 2GiB of the setting named; "" is 0.
func parseBytes(name, text string) (int64, error) {
	if text == "" {
		return 0, nil
	}
	for suffix, factor := range map[string]int64{"KiB": 1 << 10, "MiB": 1 << 20, "GiB": 1 << 30} {
		number, ok := strings.CutSuffix(text, suffix)
		if !ok {
			continue
		}
		n, err := strconv.ParseInt(strings.TrimSpace(number), 10, 64)
		if err == nil && n > 0 && n < math.MaxInt64/factor {
			return n * factor, nil
		}
	}
	return 0, fmt.Errorf("%s: %q is not a size; write it as 512MiB or 2GiB", name, text)
}
