package main

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"

	"conclave/internal/matrix"
	"conclave/rooms"
)

// Rooms are compared with other servers by the running server: only it may take in what it asks for. `conclave verify
// -partners` tells it to, over the operator's socket, and prints what comes back line by line.

// compareRequest is the command.
type compareRequest struct {
	Room   matrix.RoomID `json:"room,omitempty"`
	Repair bool          `json:"repair,omitempty"`
}

// compareLine is one line of the answer: a comparison, how far the work is, or the error that ended it.
type compareLine struct {
	Room   matrix.RoomID        `json:"room,omitempty"`
	Server matrix.ServerName    `json:"server,omitempty"`
	Kind   rooms.ComparisonKind `json:"kind,omitempty"`
	Text   string               `json:"text,omitempty"`
	Done   int                  `json:"done,omitempty"`
	Of     int                  `json:"of,omitempty"`
	Error  string               `json:"error,omitempty"`
	End    bool                 `json:"end,omitempty"` // the last line, without which something broke off
}

// compareHandler answers the command.
func compareHandler(r *rooms.Rooms, log *slog.Logger) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
		lines := json.NewEncoder(w)
		control := http.NewResponseController(w)
		say := func(l compareLine) {
			_ = lines.Encode(l) // a command that was given up is nobody to tell: the context ends
			_ = control.Flush()
		}
		var q compareRequest
		body, err := io.ReadAll(http.MaxBytesReader(w, req.Body, maxCommand))
		if err == nil {
			err = matrix.Decode(body, &q)
		}
		if err == nil {
			err = r.Compare(req.Context(), rooms.CompareRequest{Room: q.Room, Repair: q.Repair},
				func(c rooms.Comparison) { say(compareLine{Room: c.Room, Server: c.Server, Kind: c.Kind, Text: c.Text}) },
				func(done, of int) { say(compareLine{Done: done, Of: of}) })
		}
		last := compareLine{End: true}
		if err != nil {
			var known *matrix.Error
			if last.Error = "something went wrong; the server's log says what"; errors.As(err, &known) {
				last.Error = known.Text
			} else {
				log.Error("comparing rooms failed", "err", err)
			}
		}
		say(last)
	})
}

// comparePartners has the running server compare its rooms with other servers and prints what it finds. An error says
// that something differs.
func comparePartners(ctx context.Context, c console, dataDir string, q compareRequest) error {
	body, err := toServer(ctx, dataDir, "/compare", q)
	if errors.Is(err, errNotRunning) {
		return errors.New("the server does not run: other servers can only be asked by one that does; start it and say this again")
	}
	if err != nil {
		return err
	}
	defer func() { _ = body.Close() }()
	counts := map[rooms.ComparisonKind]int{}
	done, complete := 0, false
	lines := bufio.NewScanner(body)
	lines.Buffer(nil, 1<<20)
	for lines.Scan() {
		var l compareLine
		if err := json.Unmarshal(lines.Bytes(), &l); err != nil {
			return fmt.Errorf("reading the running server's answer: %w", err)
		}
		switch {
		case l.Error != "":
			return errors.New(l.Error)
		case l.End:
			complete = true
		case l.Kind != "":
			counts[l.Kind]++
			if l.Kind != rooms.Same || q.Room != "" {
				fmt.Fprintf(c.out, "%s  %s  %s: %s\n", l.Kind, l.Room, l.Server, oneLine(errors.New(l.Text)))
			}
		default:
			if done = l.Done; done%50 == 0 && done < l.Of {
				fmt.Fprintf(c.err, "%d of %d rooms compared\n", done, l.Of)
			}
		}
	}
	if err := lines.Err(); err != nil || !complete {
		return fmt.Errorf("the running server's answer broke off after %d rooms: %w", done, errors.Join(err, io.ErrUnexpectedEOF))
	}
	same := counts[rooms.Same] + counts[rooms.Repaired]
	differ := counts[rooms.Ahead] + counts[rooms.Behind] + counts[rooms.Membership] + counts[rooms.StateKind]
	sum := fmt.Sprintf("%d rooms compared: %d times the same (%d after a repair), %d differences, %d times no answer",
		done, same, counts[rooms.Repaired], differ, counts[rooms.Unreachable])
	if differ+counts[rooms.Unreachable] > 0 {
		return errors.New(sum)
	}
	fmt.Fprintln(c.out, sum+".")
	return nil
}
