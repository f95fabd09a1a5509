//go:build linux

package bench

import (
	"bufio"
	"bytes"
	"fmt"
	"os"
	"runtime"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// cpuTime is the CPU time of all threads of a process, past ones too, kernel time
// included, in full resolution.
func cpuTime(pid int) (time.Duration, error) {
	const sched = 2 // CPUCLOCK_SCHED of the process whose complement is in the upper bits
	var ts unix.Timespec
	if err := unix.ClockGettime(int32(^pid)<<3|sched, &ts); err != nil {
		return 0, fmt.Errorf("CPU clock of process %d: %w", pid, err)
	}
	return time.Duration(ts.Nano()), nil
}

// residentBytes is the resident set of a process.
func residentBytes(pid int) (int64, error) {
	data, err := os.ReadFile(fmt.Sprintf("/proc/%d/smaps_rollup", pid))
	if err != nil {
		data, err = os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	}
	if err != nil {
		return 0, err
	}
	for _, name := range []string{"Rss:", "VmRSS:"} {
		if i := bytes.Index(data, []byte(name)); i >= 0 {
			fields := strings.Fields(string(data[i+len(name):]))
			kb, err := strconv.ParseInt(fields[0], 10, 64)
			return kb << 10, err
		}
	}
	return 0, fmt.Errorf("no resident set in /proc/%d", pid)
}

// socketBytes is the kernel's memory for all TCP sockets of this machine: slabs where
// they may be read, else the buffers only. Both ends of a loopback connection count.
func socketBytes() int64 {
	f, err := os.Open("/proc/slabinfo")
	if err != nil {
		return 0
	}
	defer f.Close()
	var sum int64
	for lines := bufio.NewScanner(f); lines.Scan(); {
		fields := strings.Fields(lines.Text())
		if len(fields) < 6 {
			continue
		}
		switch fields[0] {
		case "TCP", "TCPv6", "sock_inode_cache", "skbuff_head_cache", "skbuff_small_head", "eventpoll_epi", "eventpoll_pwq", "filp", "dentry":
			objects, _ := strconv.ParseInt(fields[1], 10, 64)
			size, _ := strconv.ParseInt(fields[3], 10, 64)
			sum += objects * size
		}
	}
	return sum
}

// openFiles is the number of file descriptors of a process.
func openFiles(pid int) int {
	entries, err := os.ReadDir(fmt.Sprintf("/proc/%d/fd", pid))
	if err != nil {
		return -1
	}
	return len(entries)
}

// cores returns the first and the last core that this process may use.
func cores() (first, last int) {
	var set unix.CPUSet
	first, last = -1, -1
	if unix.SchedGetaffinity(0, &set) != nil {
		return 0, 0
	}
	for i := range 1024 {
		if set.IsSet(i) {
			if first < 0 {
				first = i
			}
			last = i
		}
	}
	return first, last
}

// pinSelf pins all threads of this process to one core.
func pinSelf(core int) error {
	runtime.GOMAXPROCS(1)
	var set unix.CPUSet
	set.Set(core)
	tasks, err := os.ReadDir("/proc/self/task")
	if err != nil {
		return err
	}
	for _, task := range tasks {
		tid, err := strconv.Atoi(task.Name())
		if err != nil {
			continue
		}
		if err := unix.SchedSetaffinity(tid, &set); err != nil && err != unix.ESRCH {
			return fmt.Errorf("pin to core %d: %w", core, err)
		}
	}
	return nil
}

// placement is where generator and server run; the same core on a machine with one.
type placement struct {
	server, generator int
	all               unix.CPUSet // all cores of this process before it was pinned
	everywhere        bool        // start on all of them
}

// place pins this process to the last core.
func place() (placement, error) {
	first, last := cores()
	p := placement{server: first, generator: last}
	if err := unix.SchedGetaffinity(0, &p.all); err != nil {
		return p, err
	}
	return p, pinSelf(last)
}

// start runs a function that starts a process on a thread that is pinned to the
// server's core; the process inherits that.
func (p placement) start(start func() error) error {
	result := make(chan error)
	go func() {
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
		var there, here unix.CPUSet
		there.Set(p.server)
		here.Set(p.generator)
		if p.everywhere {
			there = p.all
		}
		if err := unix.SchedSetaffinity(0, &there); err != nil {
			result <- fmt.Errorf("pin to core %d: %w", p.server, err)
			return
		}
		err := start()
		_ = unix.SchedSetaffinity(0, &here)
		result <- err
	}()
	return <-result
}

// selfCPU is the CPU time of this process.
func selfCPU() time.Duration {
	var ts unix.Timespec
	_ = unix.ClockGettime(unix.CLOCK_PROCESS_CPUTIME_ID, &ts)
	return time.Duration(ts.Nano())
}

// loadBefore is how many processes wanted to run, on average of the last minute: the disturbance that a run begins with.
func loadBefore() string {
	text, _ := os.ReadFile("/proc/loadavg")
	load, _, _ := strings.Cut(string(text), " ")
	return load
}
