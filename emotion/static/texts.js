/** All words of the page, in English and Korean; the choice is remembered in this browser. */

const STORED = "facevox.language";

const TEXTS = {
  en: {
    pageTitle: "Expressions, live · facevox",
    title: "Expressions, live",
    lead: "Every face in view, with the expressions that the classifier weighs in it.",
    skip: "Skip to the picture",
    language: "Language",
    scene: "Picture",
    tools: "Camera, files and recording",
    welcome: "Ready when you are",
    welcomeText: "Start the camera, or drop a picture or a short video here.",
    start: "Start camera",
    stop: "Stop camera",
    choose: "Choose a file",
    device: "Camera",
    deviceDefault: "Default camera",
    deviceNumber: "Camera {n}",
    flip: "Other camera",
    mirror: "Mirror",
    record: "Record",
    recordStop: "Stop recording",
    recording: "Recording numbers, {n} rows",
    recordFull: "The recording is full and has stopped. Save the CSV to keep it.",
    recorded: "{n} rows recorded. Save the CSV to keep them: closing the page forgets them.",
    download: "Save CSV",
    drop: "Drop to analyse",
    cancel: "Cancel",
    close: "Close",
    again: "Try again",
    progress: "Progress",
    sending: "Sending {name}",
    analysing: "Analysing {name}",
    opening: "Opening the camera …",
    faces: "Faces",
    facesCount: { one: "{n} face in view", other: "{n} faces in view" },
    facesNone: "No face in view.",
    facesIdle: "The shares appear here, face by face.",
    face: "Face {n}",
    expression: "Expression",
    tableCaption: "Share of each expression in each face, in percent",
    saidFace: "Face {n}: {label}, {share} percent",
    saidNone: "No face in view",
    canvasIdle: "No picture yet",
    canvasLive: "Camera picture with face boxes; the table beside it has the numbers",
    canvasFile: "{name} with face boxes; the table beside it has the numbers",
    speed: "Speed",
    fps: "Frames a second",
    p50: "Latency, median",
    p95: "Latency, 95 %",
    dropped: "Frames dropped",
    play: "Play",
    pause: "Pause",
    seek: "Time in the video",
    unplayable: "This browser cannot show this video. Its time line and table can be read all the same.",
    note: "Before you use it",
    note1:
      "Nothing is stored: frames are analysed in memory on this server and forgotten; a recording stays in this page until you save it.",
    note2:
      "An expression is not a feeling. The shares say how a face looks to a classifier, not what a person feels or means.",
    note3:
      "The EU AI Act, Art. 5(1)(f), bans inferring emotions at work and in education, save for medical and safety reasons.",
    note4: "Ask everybody who will be in the picture first, and let nothing that matters to them depend on the result.",
    statusIdle: "Model ready",
    statusConnecting: "Connecting",
    statusLive: "Live",
    statusNoModel: "No model",
    statusWaiting: "Reconnecting in {s} s",
    statusFull: "Server full, again in {s} s",
    statusOffline: "Server not reached",
    noModel: "No trained model yet",
    noModelText:
      "The server runs, but has nothing to classify with. Train a model on your data, or let the demo train a small one, and start the server again.",
    noModelOwn: "your own data",
    noModelDemo: "example data, a few minutes",
    deniedTitle: "The camera is blocked",
    denied:
      "This page may not use the camera. Allow it in the browser's address bar (and in the system's privacy settings), then try again.",
    noCameraTitle: "No camera found",
    noCamera: "Plug one in and try again, or choose a picture or a video.",
    busyTitle: "The camera is in use",
    busy: "Another program or tab holds the camera. Close it there and try again.",
    insecureTitle: "The camera needs a secure address",
    insecure:
      "Browsers open cameras only on https:// pages and on this machine itself (http://localhost). Pictures and videos can be uploaded here all the same.",
    cameraFailedTitle: "The camera could not be opened",
    cameraFailed: "The browser says: {reason}",
    cameraLost: "The camera was unplugged or taken by another program.",
    full: "It serves {n} pages at a time. This page keeps trying.",
    refusedTitle: "The server closed the connection",
    refused: "This page did not read its answers in time. Wait a moment, then start the camera again.",
    refusedNow: "The file was refused",
    lostHint: "Connection lost: the picture is live, the boxes come back with the server.",
    networkTitle: "The server was not reached",
    network: "Is it still running? Try again in a moment.",
    tooManyFiles: "One file at a time: {name} is taken.",
    noFaceInFile: "No face was found.",
    help: "Keyboard",
    keysOn: "Single-key shortcuts",
    keyCamera: "Start or stop the camera",
    keyUpload: "Choose a picture or video",
    keyMirror: "Mirror the picture",
    keyRecord: "Start or stop recording",
    keyDownload: "Save the CSV",
    keyPlay: "Play or pause a video",
    keyLanguage: "English / 한국어",
    keyHelp: "This list",
    keyEscape: "Close a message or a result",
    keySpace: "Space",
    keyEsc: "Esc",
  },
  ko: {
    pageTitle: "실시간으로 보는 표정 · facevox",
    title: "실시간으로 보는 표정",
    lead: "화면 속 얼굴마다 분류기가 읽은 표정의 비율을 보여 줍니다.",
    skip: "화면으로 건너뛰기",
    language: "언어",
    scene: "화면",
    tools: "카메라, 파일, 기록",
    welcome: "준비되었습니다",
    welcomeText: "카메라를 켜거나 사진 또는 짧은 영상을 여기에 놓으세요.",
    start: "카메라 켜기",
    stop: "카메라 끄기",
    choose: "파일 선택",
    device: "카메라",
    deviceDefault: "기본 카메라",
    deviceNumber: "카메라 {n}",
    flip: "카메라 전환",
    mirror: "좌우 반전",
    record: "기록",
    recordStop: "기록 중지",
    recording: "수치 기록 중, {n}행",
    recordFull: "기록이 가득 차서 멈췄습니다. CSV로 저장하세요.",
    recorded: "{n}행을 기록했습니다. 페이지를 닫으면 사라지니 CSV로 저장하세요.",
    download: "CSV 저장",
    drop: "놓으면 분석합니다",
    cancel: "취소",
    close: "닫기",
    again: "다시 시도",
    progress: "진행률",
    sending: "{name} 보내는 중",
    analysing: "{name} 분석 중",
    opening: "카메라를 여는 중 …",
    faces: "얼굴",
    facesCount: { one: "얼굴 {n}개", other: "얼굴 {n}개" },
    facesNone: "보이는 얼굴이 없습니다.",
    facesIdle: "얼굴별 비율이 여기에 나타납니다.",
    face: "얼굴 {n}",
    expression: "표정",
    tableCaption: "얼굴별 표정 비율(퍼센트)",
    saidFace: "얼굴 {n}: {label}, {share}퍼센트",
    saidNone: "보이는 얼굴 없음",
    canvasIdle: "아직 화면이 없습니다",
    canvasLive: "얼굴 상자가 그려진 카메라 화면, 수치는 옆의 표에 있습니다",
    canvasFile: "얼굴 상자가 그려진 {name}, 수치는 옆의 표에 있습니다",
    speed: "속도",
    fps: "초당 프레임",
    p50: "지연 시간, 중앙값",
    p95: "지연 시간, 95 %",
    dropped: "건너뛴 프레임",
    play: "재생",
    pause: "일시 정지",
    seek: "영상 시간",
    unplayable: "이 브라우저에서는 이 영상을 볼 수 없지만 시간표와 표는 볼 수 있습니다.",
    note: "사용하기 전에",
    note1:
      "아무것도 저장하지 않습니다. 프레임은 이 서버의 메모리에서 분석한 뒤 버리고, 기록은 저장하기 전까지 이 페이지에만 있습니다.",
    note2:
      "표정은 감정이 아닙니다. 이 비율은 분류기에 얼굴이 어떻게 보이는지를 나타낼 뿐, 그 사람의 감정이나 뜻이 아닙니다.",
    note3:
      "EU 인공지능법 제5조 제1항 (f)는 의료·안전 목적을 제외하고 직장과 교육 기관에서 감정을 추론하는 것을 금지합니다.",
    note4: "화면에 나올 모든 사람에게 먼저 동의를 구하고, 그 사람에게 중요한 결정을 이 결과에 맡기지 마세요.",
    statusIdle: "모델 준비됨",
    statusConnecting: "연결 중",
    statusLive: "실시간",
    statusNoModel: "모델 없음",
    statusWaiting: "{s}초 뒤 다시 연결",
    statusFull: "서버가 가득 참, {s}초 뒤 재시도",
    statusOffline: "서버에 연결할 수 없음",
    noModel: "아직 학습된 모델이 없습니다",
    noModelText:
      "서버는 실행 중이지만 분류할 모델이 없습니다. 데이터로 모델을 학습하거나 데모로 작은 모델을 학습한 뒤 서버를 다시 시작하세요.",
    noModelOwn: "내 데이터로",
    noModelDemo: "예제 데이터로, 몇 분",
    deniedTitle: "카메라가 차단되었습니다",
    denied:
      "이 페이지에서 카메라를 쓸 수 없습니다. 브라우저 주소창(과 시스템 개인정보 설정)에서 허용한 뒤 다시 시도하세요.",
    noCameraTitle: "카메라를 찾을 수 없습니다",
    noCamera: "카메라를 연결하고 다시 시도하거나 사진 또는 영상을 선택하세요.",
    busyTitle: "카메라를 다른 곳에서 쓰고 있습니다",
    busy: "다른 프로그램이나 탭에서 카메라를 닫은 뒤 다시 시도하세요.",
    insecureTitle: "카메라에는 보안 주소가 필요합니다",
    insecure:
      "브라우저는 https:// 페이지와 이 컴퓨터(http://localhost)에서만 카메라를 엽니다. 사진과 영상 업로드는 여기서도 됩니다.",
    cameraFailedTitle: "카메라를 열 수 없습니다",
    cameraFailed: "브라우저 메시지: {reason}",
    cameraLost: "카메라가 분리되었거나 다른 프로그램이 가져갔습니다.",
    full: "동시에 {n}개 페이지까지 쓸 수 있습니다. 계속 다시 시도합니다.",
    refusedTitle: "서버가 연결을 닫았습니다",
    refused: "이 페이지가 응답을 제때 읽지 않았습니다. 잠시 뒤 카메라를 다시 켜세요.",
    refusedNow: "파일이 거부되었습니다",
    lostHint: "연결이 끊겼습니다. 화면은 실시간이며 서버가 돌아오면 상자도 돌아옵니다.",
    networkTitle: "서버에 연결할 수 없습니다",
    network: "서버가 실행 중인지 확인하고 잠시 뒤 다시 시도하세요.",
    tooManyFiles: "한 번에 한 파일만 됩니다: {name}을(를) 분석합니다.",
    noFaceInFile: "얼굴을 찾지 못했습니다.",
    help: "키보드",
    keysOn: "한 글자 단축키 사용",
    keyCamera: "카메라 켜기/끄기",
    keyUpload: "사진 또는 영상 선택",
    keyMirror: "좌우 반전",
    keyRecord: "기록 시작/중지",
    keyDownload: "CSV 저장",
    keyPlay: "영상 재생/일시 정지",
    keyLanguage: "English / 한국어",
    keyHelp: "이 목록",
    keyEscape: "메시지나 결과 닫기",
    keySpace: "스페이스",
    keyEsc: "Esc",
  },
};

/**
 * @typedef {keyof typeof TEXTS} Language
 * @typedef {keyof typeof TEXTS.en} Key
 * @typedef {Record<string, string | number>} Values
 */

/**
 * Keeps a value in this browser; private windows may refuse it, which costs nothing but the memory.
 * @param {string} name
 * @param {string} value
 */
export function remember(name, value) {
  try {
    localStorage.setItem(name, value);
  } catch {
    // The page works without.
  }
}

/** @param {string} name */
export function recall(name) {
  try {
    return localStorage.getItem(name);
  } catch {
    return null;
  }
}

/** @returns {Language} */
function firstLanguage() {
  const stored = recall(STORED);
  if (stored === "en" || stored === "ko") return stored;
  return (navigator.language || "en").toLowerCase().startsWith("ko") ? "ko" : "en";
}

let current = firstLanguage();

export const language = () => current;

/**
 * The text of `key` with {names} filled in; `n` also chooses between one and other.
 * @param {Key} key
 * @param {Values} values
 */
export function t(key, values = {}) {
  const entry = TEXTS[current][key];
  const text = typeof entry === "string" ? entry : entry[values.n === 1 ? "one" : "other"];
  return text.replace(/\{(\w+)\}/g, (whole, name) => (name in values ? String(values[name]) : whole));
}

/**
 * The text for an attribute of index.html.
 * @param {string | undefined} key
 */
function written(key = "") {
  if (!(key in TEXTS.en)) throw new TypeError(`there is no text ${key}`);
  return t(/** @type {Key} */ (key));
}

/** Puts the words of the language into everything marked data-text (content) or data-label (name). */
export function applyTexts() {
  document.documentElement.lang = current;
  document.title = t("pageTitle");
  /** @param {string} name @returns {NodeListOf<HTMLElement>} */
  const marked = (name) => document.querySelectorAll(`[data-${name}]`);
  for (const element of marked("text")) element.textContent = written(element.dataset.text);
  for (const element of marked("label")) {
    element.setAttribute("aria-label", written(element.dataset.label));
    if (element.matches("button.icon")) element.title = written(element.dataset.label);
  }
}

/** @param {Language} name */
export function setLanguage(name) {
  current = name;
  remember(STORED, name);
  applyTexts();
}
