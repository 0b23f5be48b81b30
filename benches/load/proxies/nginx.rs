//! nginx: a master and one worker.

use super::{Doors, Lab, text_of};
use std::path::Path;
use std::process::Command;

pub fn config(lab: &Lab, doors: &Doors) -> String {
    let (origin, plain, tls, http2) = (lab.origin, doors.plain, doors.tls, doors.http2);
    let (certificate, key) = (text_of(&lab.files.certificate), text_of(&lab.files.key));
    let told = if lab.bare { "" } else { TOLD };
    format!(
        "daemon off;
worker_processes 1;
worker_rlimit_nofile 8192;
pid nginx.pid;
error_log nginx-error.log crit;
events {{ worker_connections 8000; use epoll; multi_accept on; }}
http {{
  access_log off;
  client_body_temp_path nginx-body;
  proxy_temp_path nginx-proxy;
  fastcgi_temp_path nginx-fastcgi;
  uwsgi_temp_path nginx-uwsgi;
  scgi_temp_path nginx-scgi;
  tcp_nodelay on;
  keepalive_timeout 300s;
  keepalive_requests 100000000;
  upstream origin {{
    server {origin};
    keepalive 1024;
    keepalive_requests 100000000;
    keepalive_timeout 300s;
  }}
  proxy_http_version 1.1;
  proxy_set_header Connection \"\";
  proxy_set_header X-Forwarded-For $remote_addr;
{told}  proxy_buffer_size 16k;
  proxy_buffers 8 32k;
  proxy_busy_buffers_size 64k;
  proxy_max_temp_file_size 0;
  server {{
    listen {plain} reuseport backlog=4096;
    location / {{ proxy_pass http://origin; }}
  }}
  server {{
    listen {tls} ssl reuseport backlog=4096;
    ssl_certificate {certificate};
    ssl_certificate_key {key};
    ssl_protocols TLSv1.3;
    ssl_session_cache off;
    ssl_session_tickets off;
    ssl_conf_command NumTickets 0;
    location / {{ proxy_pass http://origin; }}
  }}
  server {{
    listen {http2} ssl http2 reuseport backlog=4096;
    ssl_certificate {certificate};
    ssl_certificate_key {key};
    ssl_protocols TLSv1.3;
    ssl_session_cache off;
    ssl_session_tickets off;
    ssl_conf_command NumTickets 0;
    location / {{ proxy_pass http://origin; }}
  }}
}}
"
    )
}

/// The same for every server. A Date nginx adds by itself.
const TOLD: &str = "  proxy_set_header X-Forwarded-Proto $scheme;
  proxy_set_header X-Forwarded-Host $host;
  proxy_set_header X-Forwarded-Port $server_port;
  proxy_set_header X-Real-IP $remote_addr;
  proxy_set_header X-Request-Id $request_id;
  proxy_set_header Via \"1.1 nginx\";
  add_header Via \"1.1 nginx\";
  add_header X-Request-Id $request_id;
";

pub fn command(lab: &Lab, config: &Path) -> Command {
    let mut command = Command::new("nginx");
    command.arg("-p").arg(&lab.folder).arg("-c").arg(config).args(["-e", "nginx-error.log"]);
    command
}
