// echoing.js WHERE: answers each line with itself, after the number of lines that came by this connection.

const net = require("node:net");

const server = net.createServer((connection) => {
  // Over TCP a small answer would wait until the one before it is acknowledged.
  connection.setNoDelay();
  let count = 0;
  let pieces = [];
  connection.on("data", (data) => {
    let rest = data;
    let end;
    while ((end = rest.indexOf("\n")) >= 0) {
      count += 1;
      connection.write(Buffer.concat([Buffer.from(`${count} `), ...pieces, rest.subarray(0, end + 1)]));
      pieces = [];
      rest = rest.subarray(end + 1);
    }
    pieces.push(rest);
  });
});
// At a path, or at HOST:PORT, in which there is no slash.
const where = process.argv[2];
const [host, port] = where.split(":");
server.listen(where.includes("/") ? where : { host, port });
