package persistence

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/cockroachdb/pebble/v2/vfs/errorfs"

	"muster/persistence/memdisk"
)

func mutates(k errorfs.OpKind) bool {
	switch k {
	case errorfs.OpOpen, errorfs.OpOpenDir, errorfs.OpList, errorfs.OpStat, errorfs.OpGetDiskUsage,
		errorfs.OpFileRead, errorfs.OpFileReadAt, errorfs.OpFileStat, errorfs.OpFileClose, errorfs.OpFilePreallocate, errorfs.OpLock:
		return false
	}
	return true
}

// crashDir has parents that do not exist: they must survive as well.
const crashDir = "deep/down/data"

// progress is how far a script is: what must survive, and what may.
type progress struct{ durable, begun atomic.Int64 }

func (p *progress) run(s *Store, steps []step) error {
	for i := range steps {
		p.begun.Store(int64(i + 1))
		if err := steps[i].run(s); err != nil {
			return fmt.Errorf("%s: %w", steps[i].name, err)
		}
		if steps[i].durable() {
			p.durable.Store(int64(i + 1))
		}
	}
	return nil
}

// survives opens what a crash left and checks that it is a state the script went
// through, not older than lo and not younger than hi. It returns which.
func survives(fs vfs.FS, want []model, lo, hi int64) (int64, error) {
	o := small(fs)
	o.Ballast = -1
	s, err := Open(crashDir, o)
	if err != nil {
		return 0, fmt.Errorf("reopening: %w", err)
	}
	defer s.Close()
	got, err := dump(s)
	if err != nil {
		return 0, err
	}
	for k := hi; k >= lo; k-- {
		if d := diff(got, want[k]); d == "" {
			names, err := fs.List(s.path(stagedDir))
			if err != nil || len(names) > 0 {
				return k, fmt.Errorf("staged files stay: %v %v", names, err)
			}
			return k, s.Check()
		}
	}
	return 0, fmt.Errorf("no state between %d and %d is there; against %d:\n%s", lo, hi, lo, diff(got, want[lo]))
}

// TestCrash takes the power away before every change to a file or directory, keeping
// none, half or all of what was not synced. MUSTER_SEEDS=n varies which half, n times.
func TestCrash(t *testing.T) {
	steps := script(t)
	want := models(steps)
	seeds := 1
	if v := os.Getenv("MUSTER_SEEDS"); v != "" {
		n, _ := strconv.Atoi(v)
		seeds = min(max(1, n/1000), 20)
	}
	for seed := range seeds {
		crashes, kept, lost := crashEverywhere(t, steps, want, uint64(seed))
		t.Logf("%d crashes; %d kept more than was synced, %d nothing more", crashes, kept, lost)
		if crashes < 250 || kept < 20 || lost < 20 {
			t.Fatal("too few crashes: the hook does not see the store's writes")
		}
	}
}

func crashEverywhere(t *testing.T, steps []step, want []model, seed uint64) (crashes, kept, lost int) {
	mem := memdisk.New()
	var at progress
	var mu sync.Mutex
	rng := rand.New(rand.NewPCG(seed, 1))
	hook := errorfs.InjectorFunc(func(op errorfs.Op) error {
		if !mutates(op.Kind) {
			return nil
		}
		mu.Lock()
		defer mu.Unlock()
		for _, unsynced := range [][]int{{0, 50}, {0, 100}}[crashes/2%2] {
			lo := at.durable.Load()
			clone := mem.CrashClone(vfs.CrashCloneCfg{UnsyncedDataPercent: unsynced, RNG: rng})
			k, err := survives(clone, want, lo, at.begun.Load())
			if err != nil {
				t.Errorf("crash %d before %v, %d %% kept: %v", crashes, op, unsynced, err)
			}
			if crashes++; k > lo {
				kept++
			} else if unsynced == 0 {
				lost++
			}
		}
		return nil
	})
	s, err := Open(crashDir, small(errorfs.Wrap(mem, hook)))
	if err != nil {
		t.Fatal(err)
	}
	if err := at.run(s, steps); err != nil {
		t.Error(err)
	}
	if err := s.Close(); err != nil {
		t.Error(err)
	}
	return crashes, kept, lost
}

// TestFaults fails every change to a file or directory, once or from there on: either
// Open, a step or Fatal says so, nothing is acknowledged afterwards, and what is there
// when the disk is well again is a state the script went through.
//
// It runs in a process of its own: the stores that failed cannot be closed.
func TestFaults(t *testing.T) {
	if os.Getenv("MUSTER_TEST_FAULTS") == "" {
		cmd := exec.Command(os.Args[0], "-test.run", "^TestFaults$", "-test.v")
		cmd.Env = append(os.Environ(), "MUSTER_TEST_FAULTS=1")
		out, err := cmd.CombinedOutput()
		if err != nil || !strings.Contains(string(out), "faults were reported") {
			t.Fatalf("%v\n%s", err, out)
		}
		return
	}
	watchedTests[t] = true // as if: here goroutines stay
	steps := script(t)
	want := models(steps)
	for _, fault := range []struct {
		name string
		err  error
		code Code
		on   bool // from there on
	}{{"EIO once", syscall.EIO, ErrFailed, false}, {"disk full from there on", syscall.ENOSPC, ErrDiskFull, true}} {
		t.Run(fault.name, func(t *testing.T) {
			reported, quiet := 0, 0
			for i := int64(0); ; i++ {
				mem := memdisk.New()
				f := &faultAt{at: i, err: fault.err, on: fault.on}
				told, code, at := runFaulty(t, mem, f, steps)
				if !f.hit.Load() {
					if told {
						t.Fatalf("op %d: an error without a fault", i)
					}
					break
				}
				if told {
					reported++
					if code != fault.code {
						t.Errorf("op %d: code %s, want %s", i, code, fault.code)
					}
				} else {
					quiet++
				}
				if _, err := survives(mem.CrashClone(vfs.CrashCloneCfg{}), want, at.durable.Load(), at.begun.Load()); err != nil {
					t.Errorf("op %d: %v", i, err)
				}
			}
			t.Logf("%d faults were reported, %d did no harm", reported, quiet)
			if reported < 60 {
				t.Error("too few faults: the injector does not see the store's writes")
			}
		})
	}
}

// faultAt fails the at-th change.
type faultAt struct {
	at  int64
	err error
	on  bool
	n   atomic.Int64
	hit atomic.Bool
}

func (f *faultAt) String() string { return "fault" }

func (f *faultAt) MaybeError(op errorfs.Op) error {
	if !mutates(op.Kind) {
		return nil
	}
	n := f.n.Add(1) - 1
	if n == f.at || f.on && n > f.at {
		f.hit.Store(true)
		return f.err
	}
	return nil
}

// runFaulty opens a store and runs the script until it fails or Fatal is called, which
// ends the process as far as the store can tell.
func runFaulty(t *testing.T, mem *memdisk.Disk, f *faultAt, steps []step) (told bool, code Code, at *progress) {
	at = &progress{}
	fatal := make(chan error, 1)
	o := small(errorfs.Wrap(mem, f))
	o.Ballast = -1
	o.Fatal = func(err error) { fatal <- err; select {} }
	done := make(chan error, 1)
	var s atomic.Pointer[Store]
	go func() {
		opened, err := Open(crashDir, o)
		if err != nil {
			done <- err
			return
		}
		s.Store(opened)
		done <- at.run(opened, steps)
	}()
	var err error
	select {
	case err = <-done:
	case err = <-fatal:
	case <-time.After(10 * time.Second):
		t.Fatalf("op %d: neither an error nor the end", f.at)
	}
	if err == nil {
		return false, "", at
	}
	if s := s.Load(); s != nil {
		if s.Err() == nil {
			t.Errorf("op %d: %v, but the store says it is well", f.at, err)
		}
		if err := s.Write([]Update{{Group: 0, Ops: []Op{put("after", "x")}}}, true); err == nil {
			t.Errorf("op %d: a write was acknowledged after a failure", f.at)
		}
	}
	var own *Error
	if !errors.As(err, &own) {
		t.Errorf("op %d: not an error of this package: %v", f.at, err)
	}
	return true, classify(err, ""), at
}

func randSource() *rand.Rand { return rand.New(rand.NewPCG(1, 2)) }
