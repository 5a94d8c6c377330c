package rooms_test

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"conclave/internal/store"
	"conclave/internal/testserver/dbtest"
	"conclave/rooms"
)

// BenchmarkSend is the budget of a message (architecture, section 4): 16 senders into one room, and into 16 rooms. It
// reports the CPU of this process for each message, and that of PostgreSQL where the system shows it.
func BenchmarkSend(b *testing.B) {
	for _, engine := range dbtest.Engines {
		for _, count := range []int{1, 16} {
			b.Run(fmt.Sprintf("%s/rooms=%d", engine, count), func(b *testing.B) { benchmarkSend(b, engine, count) })
		}
	}
}

func benchmarkSend(b *testing.B, engine string, count int) {
	const senders = 16
	url := dbtest.URL(b, engine)
	l := newLocal(b, dbtest.OpenURL(b, url))
	alice := l.user("alice")
	refs := make([]rooms.Ref, count)
	for i := range refs {
		refs[i] = l.create(alice)
	}
	who := make([]rooms.Sender, senders)
	for i := range who {
		who[i] = l.user(fmt.Sprint("u", i))
		l.join(refs[i%count], who[i])
	}
	body := strings.Repeat("x", 100)
	own, theirs := processCPU(b), postgresCPU(l.db)
	b.ResetTimer()
	var all sync.WaitGroup
	for i := range senders {
		all.Go(func() {
			for n := i; n < b.N; n += senders {
				req := message(refs[i%count], who[i], body)
				req.Txn = rooms.TxnKey(int64(i+1), "send", req.Room.ID, req.Type, strconv.Itoa(n))
				if _, err := l.rooms.Send(context.Background(), req); err != nil {
					b.Error(err)
					return
				}
			}
		})
	}
	all.Wait()
	b.StopTimer()
	b.ReportMetric(float64(processCPU(b)-own)/float64(time.Microsecond)/float64(b.N), "cpu-µs/op")
	if engine == "postgres" && theirs >= 0 {
		b.ReportMetric(float64(postgresCPU(l.db)-theirs)/float64(time.Microsecond)/float64(b.N), "postgres-cpu-µs/op")
	}
	b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "events/s")
}

// processCPU is what this process has used so far.
func processCPU(b *testing.B) time.Duration {
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		b.Fatal(err)
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// postgresCPU is what the processes of the database have used that serve this test's database now; -1 where that cannot
// be seen.
func postgresCPU(db *store.DB) time.Duration {
	if !db.IsPostgres() {
		return -1
	}
	var pids []int
	err := db.Read(context.Background(), func(tx *store.Tx) error {
		pids = pids[:0]
		return tx.Query(`SELECT CAST(pid AS BIGINT) FROM pg_stat_activity WHERE datname = current_database()`, func(r *store.Row) error {
			pids = append(pids, r.Int(0))
			return nil
		})
	})
	if err != nil {
		return -1
	}
	const ticks = 100 // of the kernel's clock in a second, everywhere that Linux runs today
	total := time.Duration(-1)
	for _, pid := range pids {
		stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
		if err != nil {
			continue
		}
		_, after, _ := bytes.Cut(stat, []byte(") "))
		fields := bytes.Fields(after)
		if len(fields) < 13 {
			continue
		}
		user, _ := strconv.Atoi(string(fields[11]))
		system, _ := strconv.Atoi(string(fields[12]))
		total = max(total, 0) + time.Duration(user+system)*time.Second/ticks
	}
	return total
}
