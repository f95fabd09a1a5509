//go:build linux

package bench

import (
	"bytes"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"syscall"
	"time"
)

// childJSON runs this binary with args and reads the JSON that it prints. pinned: on the
// server's core alone, as servers run; else on all cores. expect is how long it is busy.
func (r *runner) childJSON(v any, expect time.Duration, step string, pinned bool, args ...string) error {
	exe, err := os.Executable()
	if err != nil {
		return err
	}
	cmd := exec.CommandContext(r.ctx, exe, args...)
	cmd.Env = withoutSettings(os.Environ())
	var out, problem bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &problem
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	place := r.place
	if pinned {
		cmd.Env = append(cmd.Env, "GOMAXPROCS=1")
	} else {
		place.everywhere = true
	}
	if err := place.start(cmd.Start); err != nil {
		return err
	}
	ended := make(chan error, 1)
	go func() { ended <- cmd.Wait() }()
	begin := time.Now()
	tick := time.NewTicker(200 * time.Millisecond)
	defer tick.Stop()
	for {
		select {
		case err := <-ended:
			if err != nil {
				return fmt.Errorf("%s: %w: %s", args[1], err, bytes.TrimSpace(problem.Bytes()))
			}
			return json.Unmarshal(out.Bytes(), v)
		case <-tick.C:
			r.bar.Show(step, time.Since(begin).Seconds(), expect.Seconds())
		}
	}
}
